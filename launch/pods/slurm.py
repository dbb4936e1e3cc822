"""`umit launch slurm`: a batch script of one process a node, which Slurm starts, stops and starts again.

| what happens                                | what follows                                                        |
| time limit near, preemption with grace time | SIGTERM; the processes save and end with 75; queued again           |
| SIGTERM while they still start              | they end with 143; queued again                                     |
| `scontrol requeue`, a node fails            | Slurm itself queues it again                                        |
| a process fails or is killed                | the others are killed after 60 s; queued again --max-restarts times |
| a process ends with 2                       | usage: it would fail again, so the job fails                        |
| `scancel`                                   | stays cancelled                                                     |

The number of failures is kept in the job's comment: SLURM_RESTART_COUNT counts preemptions as well.
"""

import argparse
import re
import shlex
from typing import Any

from launch.cli import USAGE, UsageError
from launch.pods import cluster
from launch.pods.run import STOPPED, Command, Rendered, Run, Topology, check_counts

_NOTICE_SECONDS = 60  # for the others to end by themselves after one has

# Slurm signals the steps; where the script is signalled too it must outlive them to ask for a requeue. A job that was
# cancelled or requeued from outside is no longer RUNNING.
_AFTERWARDS = f"""
status=$?
queue_again() {{
    [ "$(squeue --noheader --job "$SLURM_JOB_ID" --format %T)" = RUNNING ] || exit "$status"
    scontrol requeue "$SLURM_JOB_ID" && sleep 60
    exit "$status"
}}
case $status in
    0 | {USAGE}) exit "$status" ;;
    {" | ".join(map(str, STOPPED))}) queue_again ;;
esac
failures=$(squeue --noheader --job "$SLURM_JOB_ID" --format %k)
failures=$((${{failures#failures=}} + 1))
if [ "$failures" -gt "$max_restarts" ]; then
    echo "umit launch: failed $failures times, the last time with exit status $status; not queued again" >&2
    exit "$status"
fi
scontrol update "JobId=$SLURM_JOB_ID" "Comment=failures=$failures"
echo "umit launch: exit status $status; queued again ($failures of $max_restarts)" >&2
queue_again
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    cluster.add_arguments(
        parser,
        image="container image for the pyxis plugin; without one, umit of the nodes' PATH",
        mount="directory of the nodes that the container sees",
    )
    parser.add_argument("--nodes", type=int, default=1, metavar="N")
    parser.add_argument("--devices-per-node", type=int, default=1, metavar="M")
    parser.add_argument("--platform", choices=("cpu", "gpu"), default="gpu")
    parser.add_argument("--cpus-per-node", type=int, default=0, metavar="N", help="0: the whole node, alone on it")
    parser.add_argument("--time", default="24:00:00", help="limit of one start; what is not done then is queued again")
    parser.add_argument("--setup", default="", metavar="LINE", help="shell line executed before umit")
    parser.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help="--partition=NAME, ...")


def topology(args: argparse.Namespace) -> Topology:
    check_counts(args, "nodes", "devices_per_node")
    check_counts(args, "cpus_per_node", least=0)
    return Topology(args.platform, args.nodes, args.devices_per_node)


def render(run: Run, args: argparse.Namespace) -> Rendered:
    cluster.shared_workdir(run)
    cluster.image_to_mount_into(run)
    path = f"{args.out}/{run.name}.sbatch"
    return Rendered((Command(("sbatch", path)),), {path: _script(run, args)})


def start(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    return cluster.start(render(run, args), "slurm", run.secrets)


def _script(run: Run, args: argparse.Namespace) -> str:
    environment = run.environment()
    if run.topology.accelerator == "gpu":  # without this jax takes one GPU a process of a Slurm step
        environment = {
            "JAX_LOCAL_DEVICE_IDS": ",".join(map(str, range(run.topology.devices_per_process))),
            **environment,
        }
    srun = ["srun", "--kill-on-bad-exit=0", f"--wait={_NOTICE_SECONDS}"]
    if args.cpus_per_node:  # srun does not take it over from sbatch
        srun.append(f"--cpus-per-task={args.cpus_per_node}")
    if run.image:
        srun += [f"--container-image={run.image}", f"--container-env={','.join([*environment, *run.secrets])}"]
    if run.mounts:
        srun.append(f"--container-mounts={','.join(f'{source}:{path}' for source, path in run.mounts)}")
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in _options(run, args)),
        "set -u",
        "trap : TERM",
        f"max_restarts={run.max_restarts}",
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
        *(f': "${{{name}:?is not in the environment of sbatch}}"' for name in run.secrets),
        *filter(None, [cluster.one_line("--setup", args.setup)]),
        shlex.join([*srun, *run.argv]),
    ]
    return "\n".join(lines) + _AFTERWARDS


def _options(run: Run, args: argparse.Namespace) -> list[str]:
    """Those of the user come last, so that they win."""
    if not re.fullmatch(r"\d+(-\d+)?(:\d+){0,2}", args.time):
        raise UsageError(f"--time: expected as in 24:00:00 or 2-12:00:00, found {args.time!r}")
    options = [
        f"--job-name={run.name}",
        f"--nodes={run.topology.processes}",
        "--ntasks-per-node=1",
        f"--time={args.time}",
        f"--signal=TERM@{run.grace_seconds}",
        "--requeue",
        "--open-mode=append",
        f"--output={shlex.quote(cluster.one_line('--out', args.out))}/{run.name}-%j.log",
        "--comment=failures=0",
    ]
    if run.topology.accelerator == "gpu":
        options.append(f"--gpus-per-node={run.topology.devices_per_process}")
    # A process that may use one core, which is what Slurm gives unasked, prepares images far too slowly.
    options += [f"--cpus-per-task={args.cpus_per_node}"] if args.cpus_per_node else ["--exclusive", "--mem=0"]
    for option in args.sbatch:
        if not re.fullmatch(r"--?[a-z].*", cluster.one_line("--sbatch", option)):
            raise UsageError(f"--sbatch: expected an option of sbatch as in --partition=NAME, found {option!r}")
    return options + args.sbatch
