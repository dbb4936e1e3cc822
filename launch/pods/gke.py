"""`umit launch gke`: a JobSet, one Job a slice and one pod a host, admitted by Kueue.

| how a pod ends                                  | what the JobSet does                                             |
| 75, 143: stopped by SIGTERM                     | starts all pods again, however often                             |
| evicted: preemption, maintenance, drained node  | the same                                                         |
| anything else                                   | starts all pods again, --max-restarts times                      |

A pod that fails fails its Job (backoffLimit 0), and a Job that fails restarts the whole set: the processes of an
attempt are of use only together. The next attempt begins when the last pod of the one before is gone, as both write one
workdir. Kubernetes expands $(NAME) in commands and values, so every $ is written twice.
"""

import argparse
from typing import Any

import yaml

from launch.cli import UsageError
from launch.pods import cluster, tpu
from launch.pods.run import STOPPED, Command, Rendered, Run, Topology

_POOL = "cloud.google.com/gke-nodepool"
_PORTS = {8471: "tpu", 8482: "jax", 8080: "megascale"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    cluster.add_arguments(parser, image="container image that holds umit", mount="persistent volume claim")
    tpu.add_arguments(parser)
    parser.add_argument("--queue", default="multislice-queue", help="Kueue's LocalQueue; empty for no Kueue")
    parser.add_argument("--priority", default="", metavar="CLASS", help="priority class of the pods")
    parser.add_argument("--namespace", default="default")
    parser.add_argument(
        "--node-selector", action="append", default=[], metavar="KEY=VALUE", help="cloud.google.com/gke-spot=true, ..."
    )
    parser.add_argument("--service-account", default="", metavar="NAME", help="of Kubernetes; it may read the bucket")


def topology(args: argparse.Namespace) -> Topology:
    return tpu.topology(args)


def render(run: Run, args: argparse.Namespace) -> Rendered:
    cluster.image_needed(run, "gke")
    cluster.shared_workdir(run, mounted=True)
    path = f"{args.out}/{run.name}.yaml"
    text = yaml.safe_dump(_jobset(run, args), sort_keys=False, allow_unicode=True, width=120)
    return Rendered((Command(("kubectl", "create", "--filename", path)),), {path: text})


def start(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    return cluster.start(render(run, args), "gke")


def _jobset(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    hosts = run.topology.processes // run.topology.slices
    metadata: dict[str, Any] = {"name": run.name, "namespace": args.namespace}
    if args.queue:
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": args.queue}
    metadata["annotations"] = {"alpha.jobset.sigs.k8s.io/exclusive-topology": _POOL}  # a slice is one node pool
    job = {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": "umit", "operator": "In", "values": list(STOPPED)},
                },
            ]
        },
        "template": {"spec": _pod(run, args)},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "failurePolicy": {
                "maxRestarts": run.max_restarts,
                "restartStrategy": "BlockingRecreate",
                "rules": [
                    {
                        "name": "preempted",
                        "action": "RestartJobSetAndIgnoreMaxRestarts",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "replicatedJobs": [{"name": "slice", "replicas": run.topology.slices, "template": {"spec": job}}],
        },
    }


def _pod(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    chip, shape, chips = tpu.parts(run.topology)
    environment = run.environment()
    container = {
        "name": "umit",
        "image": run.image,
        "command": [_literal(word) for word in run.argv],
        "env": [
            *({"name": name, "value": _literal(value)} for name, value in environment.items()),
            *({"name": name, "valueFrom": {"secretKeyRef": {"name": run.name, "key": name}}} for name in run.secrets),
        ],
        "ports": [{"name": name, "containerPort": port} for port, name in _PORTS.items()],
        "resources": {"requests": {"google.com/tpu": chips}, "limits": {"google.com/tpu": chips}},
        "securityContext": {"privileged": True},  # libtpu raises its limit of locked memory
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": run.grace_seconds,
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": tpu.GKE_ACCELERATORS[chip],
            "cloud.google.com/gke-tpu-topology": shape,
            **dict(_selector(text) for text in args.node_selector),
        },
        "tolerations": [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [container],
    }
    # Data workers hand over batches through /dev/shm, of which a pod has 64 MB unless it is given more.
    names = {source: f"volume-{index}" for index, source in enumerate(dict(run.mounts))}
    claims = [{"name": name, "persistentVolumeClaim": {"claimName": source}} for source, name in names.items()]
    pod["volumes"] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}, *claims]
    mounts = [("shm", "/dev/shm"), *((names[source], path) for source, path in run.mounts)]
    container["volumeMounts"] = [{"name": name, "mountPath": path} for name, path in mounts]
    if args.priority:
        pod["priorityClassName"] = args.priority
    if args.service_account:
        pod["serviceAccountName"] = args.service_account
    return pod


def _selector(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise UsageError(f"--node-selector: expected KEY=VALUE, found {text!r}")
    return key, value


def _literal(text: str) -> str:
    return text.replace("$", "$$")
