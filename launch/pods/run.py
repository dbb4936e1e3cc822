"""A run as every backend sees it: what is executed, on which devices, with which environment. Rendered, never guessed.

    flags -> Run -> backend.render(run, args) -> Rendered (files and exact commands) -> shown (--dry-run) or started

Every process executes the same command; which of them it is, it finds out in launch/processes.py.
"""

import argparse
import dataclasses
import shlex
import signal
from typing import Any

from launch import processes
from launch.cli import PREEMPTED, UsageError

# Exit statuses after which a run starts again uncounted: it has saved, or was stopped before it could handle SIGTERM.
STOPPED = (PREEMPTED, 128 + signal.SIGTERM)
_PLATFORMS = {"cpu": "cpu", "gpu": "cuda,cpu"}
_CPU_DEVICES = "--xla_force_host_platform_device_count"


def check_counts(args: argparse.Namespace, *names: str, least: int = 1) -> None:
    """Raises UsageError for the first of these flags that is below `least`."""
    for name in names:
        if getattr(args, name) < least:
            raise UsageError(f"--{name.replace('_', '-')}: expected at least {least}, found {getattr(args, name)}")


@dataclasses.dataclass(frozen=True)
class Topology:
    """One process a host. accelerator: cpu, gpu, or a TPU slice by shape (v5e:16x16); processes: of all slices."""

    accelerator: str
    processes: int
    devices_per_process: int
    slices: int = 1


@dataclasses.dataclass(frozen=True)
class Run:
    """command: the arguments of `umit`. env: set beside what the topology needs. secrets: names of variables that every
    process finds in its environment without their value being written down. mounts: what the backend mounts, and the
    path where every process sees it. grace_seconds: from SIGTERM to SIGKILL; a checkpoint must fit in. max_restarts:
    how often a run that failed starts again; schedulers do not count preemptions.
    """

    name: str
    command: tuple[str, ...]
    workdir: str
    topology: Topology
    env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()
    image: str = ""
    mounts: tuple[tuple[str, str], ...] = ()
    grace_seconds: int = 60
    max_restarts: int = 0

    @property
    def argv(self) -> tuple[str, ...]:
        """The command of every process, where umit is installed."""
        return ("umit", *self.command)

    def environment(self, xla_flags: str = "") -> dict[str, str]:
        """What every process has in its environment, wherever it runs. xla_flags: of the environment it starts from.

        JAX_PLATFORMS is set so that a process that finds no accelerator stops instead of training on its CPU.
        """
        topology, own = self.topology, dict(self.env)
        every = {
            processes.COUNT: str(topology.processes),
            "JAX_PLATFORMS": _PLATFORMS.get(topology.accelerator, "tpu,cpu"),
        }
        if topology.slices > 1:  # a slice that hangs ends the processes, which a scheduler can start again
            every["LIBTPU_INIT_ARGS"] = "--megascale_abort_on_hangs=true"
        if topology.accelerator == "cpu":
            given = own.pop("XLA_FLAGS", xla_flags).split()
            others = [flag for flag in given if not flag.startswith(_CPU_DEVICES)]
            every["XLA_FLAGS"] = " ".join([*others, f"{_CPU_DEVICES}={topology.devices_per_process}"])
        return {**every, **own}


@dataclasses.dataclass(frozen=True)
class Command:
    """One command as it is executed; env is set beside the environment it is started from."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """A line for a shell."""
        return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in self.env), shlex.join(self.argv)])


@dataclasses.dataclass(frozen=True)
class Rendered:
    """files: text by path; commands: in the order they are executed, or at once where the backend is local."""

    commands: tuple[Command, ...]
    files: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        files = [f"# {name}\n{text}" for name, text in self.files.items()]
        return "\n".join([*files, *map(str, self.commands)])

    def to_json(self) -> dict[str, Any]:
        commands = [{"argv": list(command.argv), "env": dict(command.env)} for command in self.commands]
        return {"commands": commands, "files": self.files}
