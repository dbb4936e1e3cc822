"""`umit launch skypilot`: a managed job on a TPU VM slice, which SkyPilot starts in another zone after a preemption.

It starts again after SIGTERM (75, 143) however often, after other failures --max-restarts times, wrong usage included.
A slice is one node to SkyPilot, and its command runs on every host; it knows no runs of several slices.
"""

import argparse
import shlex
from typing import Any

import yaml

from launch.cli import UsageError
from launch.pods import cluster, tpu
from launch.pods.run import STOPPED, Command, Rendered, Run, Topology


def add_arguments(parser: argparse.ArgumentParser) -> None:
    cluster.add_arguments(
        parser,
        image="container image; without one, --setup installs umit on the machines",
        mount="bucket, as in gs://NAME",
    )
    tpu.add_arguments(parser)
    parser.add_argument("--infra", default="gcp", metavar="gcp[/REGION[/ZONE]]", help="where")
    parser.add_argument("--spot", action="store_true")
    parser.add_argument("--setup", default="", metavar="LINE", help="shell line executed once on every machine")


def topology(args: argparse.Namespace) -> Topology:
    if args.slices > 1:
        raise UsageError(f"--slices: expected 1, as SkyPilot joins no slices; found {args.slices}; see gke")
    return tpu.topology(args, hosts_of_8=True)


def render(run: Run, args: argparse.Namespace) -> Rendered:
    cluster.shared_workdir(run, mounted=True)
    kind, runtime = tpu.vm_type(run.topology)
    recovery = {"max_restarts_on_errors": run.max_restarts, "recover_on_exit_codes": list(STOPPED)}
    resources: dict[str, Any] = {
        "infra": args.infra,
        "accelerators": f"tpu-{kind}:1",
        "accelerator_args": {"runtime_version": runtime},
        "use_spot": args.spot,
        "job_recovery": recovery,
    }
    if run.image:
        resources["image_id"] = f"docker:{run.image}"
    task: dict[str, Any] = {"name": run.name, "num_nodes": 1, "resources": resources, "envs": run.environment()}
    if run.secrets:
        task["secrets"] = dict.fromkeys(run.secrets)
    if run.mounts:
        task["file_mounts"] = {path: {"source": source, "mode": "MOUNT"} for source, path in run.mounts}
    if args.setup:
        task["setup"] = cluster.one_line("--setup", args.setup)
    task["run"] = f"{shlex.join(run.argv)}\n"
    path = f"{args.out}/{run.name}.sky.yaml"
    flags = [word for name in run.secrets for word in ("--secret", name)]  # taken from the environment of sky
    command = Command(("sky", "jobs", "launch", "--yes", "--detach-run", "--name", run.name, *flags, path))
    return Rendered((command,), {path: yaml.safe_dump(task, sort_keys=False, allow_unicode=True, width=120)})


def start(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    return cluster.start(render(run, args), "skypilot", run.secrets)
