"""`umit launch xpk`: the same pods as `umit launch gke`, written and submitted by xpk 1.x.

xpk restarts on the exit statuses it is told, here all of umit's but that of wrong usage, and counts every restart
against --max-restarts, also those after a preemption. It pastes the command into a shell script and the values into
double quotes of YAML as they are, and Kubernetes expands $(NAME) in both: they are escaped here.
"""

import argparse
import json
import shlex
from typing import Any

from launch.cli import FAILED, PREEMPTED
from launch.pods import cluster, tpu
from launch.pods.run import Command, Rendered, Run, Topology


def add_arguments(parser: argparse.ArgumentParser) -> None:
    cluster.add_arguments(parser, image="container image that holds umit", max_restarts=100)
    tpu.add_arguments(parser)
    parser.add_argument("--cluster", required=True, metavar="NAME", help="made by xpk")
    parser.add_argument("--project", required=True)
    parser.add_argument("--zone", required=True)
    parser.add_argument("--priority", default="medium", choices=("very-low", "low", "medium", "high", "very-high"))


def topology(args: argparse.Namespace) -> Topology:
    return tpu.topology(args)


def render(run: Run, args: argparse.Namespace) -> Rendered:
    """A file of variables, as xpk takes secrets from its own environment only there: a name without a value."""
    from umit_jax.train.watchdog import HUNG

    cluster.image_needed(run, "xpk")
    cluster.shared_workdir(run)
    chip, shape, _ = tpu.parts(run.topology)
    environment = run.environment()
    lines = [*(f"{name}={_yaml(value)}" for name, value in environment.items()), *run.secrets]
    path = f"{args.out}/{run.name}.env"
    command = cluster.one_line("--config.KEY=VALUE", shlex.join(run.argv)).replace("$", "$$")
    flags = {
        "cluster": args.cluster,
        "project": args.project,
        "zone": args.zone,
        "workload": run.name,
        "tpu-type": f"{tpu.CLOUD_TYPES.get(chip, chip)}-{shape}",
        "num-slices": run.topology.slices,
        "docker-image": run.image,
        "env-file": path,
        "command": f"exec {command}",  # so that SIGTERM reaches umit and not a shell around it
        "priority": args.priority,
        "max-restarts": run.max_restarts,
        "restart-on-exit-codes": f"{FAILED},{HUNG},{PREEMPTED}",
        "termination-grace-period-seconds": run.grace_seconds,
    }
    argv = ("xpk", "workload", "create", *(f"--{name}={value}" for name, value in flags.items()))
    return Rendered((Command(argv),), {path: "\n".join(lines) + "\n"})


def start(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    return cluster.start(render(run, args), "xpk", run.secrets)


def _yaml(value: str) -> str:
    """value as it stands between the double quotes of a YAML scalar."""
    return json.dumps(value.replace("$", "$$"), ensure_ascii=False)[1:-1]
