"""A run as every backend sees it: what is executed, on which devices, with which environment. Rendered, never guessed.

    flags -> Run -> backend.render(run, args) -> Rendered (files and exact commands) -> shown (--dry-run) or started

Every process executes the same command; which of them it is, it finds out in launch/processes.py.
"""

import dataclasses
import shlex
from typing import Any

from launch import processes


@dataclasses.dataclass(frozen=True)
class Topology:
    """Processes are one a host. accelerator: cpu, gpu, or a TPU slice by name (v5e-256); processes: of all slices."""

    accelerator: str
    processes: int
    devices_per_process: int
    slices: int = 1


@dataclasses.dataclass(frozen=True)
class Run:
    """command: the arguments of `umit`. env: set beside what the topology needs. grace_seconds: from SIGTERM to
    SIGKILL; a checkpoint must fit in. max_restarts: how often a run that was preempted or failed is started again."""

    name: str
    command: tuple[str, ...]
    workdir: str
    topology: Topology
    env: tuple[tuple[str, str], ...] = ()
    image: str = ""
    grace_seconds: int = 60
    max_restarts: int = 0

    def environment(self) -> dict[str, str]:
        """What every process has in its environment, wherever it runs."""
        return {processes.COUNT: str(self.topology.processes), **dict(self.env)}


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
    """files: text by name; commands: in the order they are executed, or at once where the backend is local."""

    commands: tuple[Command, ...]
    files: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        files = [f"# {name}\n{text}" for name, text in self.files.items()]
        return "\n".join([*files, *map(str, self.commands)])

    def to_json(self) -> dict[str, Any]:
        commands = [{"argv": list(command.argv), "env": dict(command.env)} for command in self.commands]
        return {"commands": commands, "files": self.files}
