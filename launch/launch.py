"""`umit launch BACKEND`: the same training run on this machine or a cluster, from one description (launch/pods/run.py).

A backend is a module of launch/pods with `add_arguments`, `topology(args)`, `render(run, args)` and `start(run, args)`.
docs/pods.md walks through each.
"""

import argparse
import importlib
import re
from typing import Any

from launch import config_file, processes, workdir
from launch.cli import UsageError
from launch.pods import secrets
from launch.pods.run import Run, check_counts

BACKENDS = {
    "local": ("launch.pods.local", "several processes on this machine"),
    "slurm": ("launch.pods.slurm", "a Slurm job: one process a node"),
    "gke": ("launch.pods.gke", "a JobSet on TPU slices of Google Kubernetes Engine"),
    "xpk": ("launch.pods.xpk", "the same through xpk"),
    "tpu-vm": ("launch.pods.tpu_vm", "TPU VMs as a queued resource"),
    "skypilot": ("launch.pods.skypilot", "TPU VMs through SkyPilot"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    config_file.let_overrides_through(parser)
    backends = parser.add_subparsers(dest="backend", metavar="BACKEND", required=True)
    for name, (module, text) in BACKENDS.items():
        own = backends.add_parser(name, help=text, description=text, allow_abbrev=False)
        config_file.add_flag(own)
        own.add_argument(
            "--workdir", dest="run_workdir", type=_workdir, required=True, metavar="DIR", help="seen by all"
        )
        text = "`umit eval` of this checkpoint instead of training; --workdir is then its --out"
        own.add_argument("--evaluate", metavar="CHECKPOINT", help=text)
        own.add_argument("--name", default="umit", help="of the job")
        own.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="set in every process")
        own.add_argument(
            "--secret", action="append", default=[], metavar="NAME", help="as --env, its value not written"
        )
        own.add_argument("--max-restarts", type=int, default=0, metavar="N", help="starts after failures (%(default)s)")
        own.add_argument(
            "--grace-seconds", type=int, default=60, metavar="N", help="from SIGTERM to SIGKILL (%(default)s)"
        )
        own.add_argument("--dry-run", action="store_true", help="show files and commands, start nothing")
        for flag in ("--json", "--debug"):  # as of every command, also after the backend's name
            own.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        importlib.import_module(module).add_arguments(own)


def run(args: argparse.Namespace) -> dict[str, Any]:
    backend = importlib.import_module(BACKENDS[args.backend][0])
    described = describe(args, backend)
    if args.dry_run:
        rendered = backend.render(described, args)
        print(rendered)
        args.out = None  # no summary either
        return {"backend": args.backend, "dry_run": True, **rendered.to_json()}
    return {"backend": args.backend, **backend.start(described, args)}


def describe(args: argparse.Namespace, backend: Any) -> Run:
    """The Run that the flags ask for. A config that cannot be read is refused here, not on every host."""
    secrets.refuse(vars(args))
    config = config_file.load(args.config, args.overrides)
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", args.name):
        raise UsageError(f"--name: expected lower case letters, digits and dashes, found {args.name!r}")
    check_counts(args, "max_restarts", "grace_seconds", least=0)
    topology = backend.topology(args)
    if args.backend != "local":  # which says so at once; elsewhere it may be after a day in a queue
        from umit_jax.parallel.mesh import axis_sizes

        axis_sizes(config.mesh, topology.processes * topology.devices_per_process, topology.slices)
    return Run(
        name=args.name,
        command=_command(args),
        workdir=args.run_workdir,
        topology=topology,
        env=tuple(_variable(text) for text in args.env),
        secrets=tuple(_name("--secret", text) for text in args.secret),
        image=getattr(args, "image", ""),
        mounts=tuple(_mount(text) for text in getattr(args, "mount", ())),
        grace_seconds=args.grace_seconds,
        max_restarts=args.max_restarts,
    )


def _command(args: argparse.Namespace) -> tuple[str, ...]:
    """What every process runs."""
    if args.evaluate is None:
        return "train", "--config", args.config, "--workdir", args.run_workdir, *args.overrides
    if args.run_workdir.startswith("gs://"):
        raise UsageError(f"--workdir: {args.run_workdir}: umit eval writes to a directory, not into a bucket")
    own = "--checkpoint", args.evaluate, "--out", args.run_workdir
    return "eval", "--config", args.config, *own, *args.overrides


def _workdir(text: str) -> str:
    """As it was given: the command of every process has it. gs:// needs gcsfs there, not here."""
    if not text.startswith("gs://"):
        workdir.path(text)
    return text


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or "\0" in value:
        raise UsageError(f"--env: expected NAME=VALUE, found {text!r}")
    return _name("--env", name), value


def _mount(text: str) -> tuple[str, str]:
    source, _, path = text.rpartition(":")
    if not (re.fullmatch(r"(gs://)?[\w./-]+", source) and re.fullmatch(r"(/[\w.-]+)+", path)):
        raise UsageError(f"--mount: expected SOURCE:/PATH, found {text!r}")
    return source, path


def _name(flag: str, name: str) -> str:
    """The name of a variable; those that say which process of how many this is are not to be set by hand."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name in processes.VARIABLES:
        raise UsageError(f"{flag}: expected {'NAME=VALUE' if flag == '--env' else 'NAME'}, found {name!r}")
    return name
