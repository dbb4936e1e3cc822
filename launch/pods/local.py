"""`umit launch local`: N processes on this machine, watched as a scheduler would.

A signal goes on to all of them. Where one fails, the others are given a moment to notice and are then killed: they
would wait for it. A preemption (75) or a failure other than of usage starts them again, --max-restarts times. Process 0
writes where this command does; the others' lines go to stderr with their number.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import IO, Any

from launch import processes, workdir
from launch.cli import PREEMPTED
from launch.pods import cluster
from launch.pods.run import Command, Rendered, Run, Topology, check_counts

_NOTICE_SECONDS = 15.0  # for the others to end by themselves after one has failed


class LaunchError(RuntimeError):
    """A process failed; it has said why. exit_status: what this command ends with."""

    def __init__(self, message: str, exit_status: int):
        super().__init__(message)
        self.exit_status = exit_status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processes", type=int, default=1, metavar="N")
    parser.add_argument("--devices-per-process", type=int, default=1, metavar="M")
    parser.add_argument(
        "--platform", choices=("cpu", "gpu"), default="cpu", help="gpu: process i has GPUs i*M..i*M+M-1"
    )


def topology(args: argparse.Namespace) -> Topology:
    check_counts(args, "processes", "devices_per_process")
    return Topology(args.platform, args.processes, args.devices_per_process)


def render(run: Run, args: argparse.Namespace) -> Rendered:
    """One command a process, to be executed at once."""
    del args
    cluster.have_secrets(run.secrets)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    argv = (sys.executable, "-m", "launch", *run.command)
    every = run.environment(os.environ.get("XLA_FLAGS", ""))
    commands = []
    for index in range(run.topology.processes):
        own = {processes.COORDINATOR: address, processes.INDEX: str(index), **_devices(run.topology, index)}
        commands.append(Command(argv, tuple({**own, **every}.items())))
    return Rendered(tuple(commands))


def start(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """Runs the processes to their end. Raises LaunchError with the status that the failed one ended with."""
    for attempt in range(run.max_restarts + 1):
        group = _Group(render(run, args).commands, run.grace_seconds)
        statuses = group.wait()
        if all(status == 0 for status in statuses):
            return {"processes": len(statuses), "restarts": attempt, **_summary(run)}
        failed = _what_failed(statuses)
        if group.stopped or attempt == run.max_restarts or failed.exit_status == 2:
            raise failed
        print(f"umit launch: {failed}; starting again ({attempt + 1} of {run.max_restarts})", file=sys.stderr)
    raise AssertionError("unreachable")


def _summary(run: Run) -> dict[str, Any]:
    """What process 0 left in the workdir, without what is this command's own."""
    summary = workdir.read_json(workdir.path(run.workdir) / "summary.json")
    return {
        k: v for k, v in summary.items() if k not in ("command", "version", "config_hash", "seconds", "peak_rss_mb")
    }


def _devices(topology: Topology, index: int) -> dict[str, str]:
    each = topology.devices_per_process
    if topology.accelerator == "cpu":
        return {}
    own = range(index * each, (index + 1) * each)
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, own))}


def _what_failed(statuses: Sequence[int | None]) -> LaunchError:
    """The process to blame: one that said what was wrong, one that was killed, one that did not end, one preempted."""
    for index, status in enumerate(statuses):
        if status and status > 0 and status != PREEMPTED:
            return LaunchError(f"process {index} ended with exit status {status}", status)
    for index, status in enumerate(statuses):
        if status and status < 0:
            return LaunchError(f"process {index} was ended by {signal.Signals(-status).name}", 1)
    if None in statuses:
        return LaunchError(f"process {statuses.index(None)} did not end in time and was killed", 1)
    return LaunchError(f"process {statuses.index(PREEMPTED)} was preempted; the same command resumes", PREEMPTED)


class _Group:
    """The processes of one attempt."""

    def __init__(self, commands: Sequence[Command], grace_seconds: float):
        self.stopped = False
        self._grace = grace_seconds
        self._processes: list[subprocess.Popen[bytes]] = []
        self._killed: set[int] = set()
        self._relays: list[threading.Thread] = []
        for index, command in enumerate(commands):
            process = subprocess.Popen(
                command.argv,
                env={**os.environ, **dict(command.env)},
                stdout=None if index == 0 else subprocess.PIPE,
                stderr=None if index == 0 else subprocess.STDOUT,
                start_new_session=True,  # signals come from here, not from the terminal as well
            )
            self._processes.append(process)
            if process.stdout:
                relay = threading.Thread(target=_relay, args=(index, process.stdout), daemon=True)
                relay.start()
                self._relays.append(relay)

    def wait(self) -> list[int | None]:
        """Their exit statuses, negative for a signal, None where they were killed here."""
        before = {s: signal.signal(s, self._stop) for s in (signal.SIGTERM, signal.SIGINT)}
        deadline: float | None = None
        try:
            while any(status is None for status in self._statuses()):
                ended = [status for status in self._statuses() if status is not None]
                if deadline is None and (any(ended) or self.stopped):
                    orderly = self.stopped or all(status in (0, PREEMPTED) for status in ended)
                    deadline = time.monotonic() + (self._grace if orderly else _NOTICE_SECONDS)
                if deadline is not None and time.monotonic() > deadline:
                    self._kill()
                time.sleep(0.05)
        finally:
            self._kill()
            for number, handler in before.items():
                signal.signal(number, handler)
        for relay in self._relays:
            relay.join(5)
        return [None if i in self._killed else status for i, status in enumerate(self._statuses())]

    def _statuses(self) -> list[int | None]:
        return [process.poll() for process in self._processes]

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """One that has ended makes no difference: poll() knows before a signal could reach another with its id."""
        del frame
        self.stopped = True
        for process in self._processes:
            process.send_signal(number)

    def _kill(self) -> None:
        for index, process in enumerate(self._processes):
            if process.poll() is None:
                process.kill()
                process.wait()
                self._killed.add(index)


def _relay(index: int, lines: IO[bytes]) -> None:
    for line in lines:
        sys.stderr.write(f"[{index}] {line.decode(errors='replace')}")
        sys.stderr.flush()
