"""The toy of toy.py as processes of their own: one, or several that train together."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from tests.train.toy import FROZEN_TOWER, lines

ROOT = pathlib.Path(__file__).parents[2]


def start(
    workdir, devices, mesh, processes=None, cache=True, config=None, base=None, **stream
) -> subprocess.Popen[str]:
    arguments = {
        "workdir": str(workdir),
        "devices": devices,
        "mesh": mesh,
        "config": {"log_samples": True, **(config or {"optimizer__patterns": FROZEN_TOWER})},
        "stream": stream,
        "base": base and str(base),
    }
    if processes:
        arguments["processes"] = processes
    environment = dict(os.environ)
    if not cache:
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-m", "tests.train.toy", json.dumps(arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process) -> dict:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def together(workdir, count, devices, mesh, **settings) -> list[tuple[int, str, str]]:
    """Starts `count` processes of `devices` devices each; their statuses, stdout and stderr when all have ended."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    started = [start(workdir, devices, mesh, [address, count, index], **settings) for index in range(count)]
    ended = [(process, *process.communicate(timeout=500)) for process in started]
    return [(process.returncode, out, err) for process, out, err in ended]


def assert_same_run(workdir, reference) -> None:
    """The same samples at every step, and the same losses up to the order in which numbers are added."""
    for ours, theirs in zip(lines(workdir), lines(reference), strict=True):
        assert ours["sample_ids"] == theirs["sample_ids"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
