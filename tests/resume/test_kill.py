"""6 steps == 3 + kill -9 + 3, in real processes that are really killed.

On one device every process compiles for itself, because a restarted run does: bits are equal only because the compiler
is deterministic. On eight fake devices the processes share the tests' compilation cache, to save minutes.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.train.toy import FROZEN_TOWER, lines

ROOT = pathlib.Path(__file__).parents[2]


def start(workdir, devices, mesh, **stream) -> subprocess.Popen[str]:
    arguments = {
        "workdir": str(workdir),
        "devices": devices,
        "mesh": mesh,
        "config": {"log_samples": True, "optimizer__patterns": FROZEN_TOWER},
        "stream": stream,
    }
    environment = dict(os.environ)
    if devices == 1:
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-m", "tests.train.toy", json.dumps(arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process) -> dict:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def kill_after(process, checkpoint: pathlib.Path) -> None:
    """SIGKILL as soon as the checkpoint is whole; the stream of the process hangs in a later step."""
    deadline = time.monotonic() + 300
    while not checkpoint.is_dir():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()


def without_time(workdir) -> list[dict]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines(workdir)]


MESHES = {1: {}, 8: {"data": 2, "fsdp": 2, "tensor": 2}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Workdirs of six uninterrupted steps, by number of devices."""
    workdirs = {devices: tmp_path_factory.mktemp("whole") for devices in MESHES}
    for process in [start(workdirs[devices], devices, mesh) for devices, mesh in MESHES.items()]:
        finish(process)
    return workdirs


@pytest.mark.parametrize("devices", MESHES)
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, whole, devices):
    killed = start(tmp_path, devices, MESHES[devices], hang_at=6)  # steps 4 and 5 are logged, and will be taken again
    kill_after(killed, tmp_path / "checkpoints" / "3")
    summary = finish(start(tmp_path, devices, MESHES[devices]))
    assert (summary["resumed_from"], summary["compilations"]) == (3, 1)
    assert without_time(tmp_path) == without_time(whole[devices])


def test_a_run_killed_on_one_device_goes_on_on_eight(tmp_path, whole):
    shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "6")
    summary = finish(start(tmp_path, 8, MESHES[8]))
    assert summary["resumed_from"] == 3
    for ours, theirs in zip(lines(tmp_path), lines(whole[1]), strict=True):
        assert ours["sample_ids"] == theirs["sample_ids"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)


def test_a_run_killed_while_it_saves_leaves_no_half_checkpoint(tmp_path):
    """Killed at an arbitrary moment of the save: what is there afterwards is whole, and the run goes on from it."""
    process = start(tmp_path, 8, MESHES[8], hang_at=5)
    folder = tmp_path / "checkpoints"
    deadline = time.monotonic() + 300
    with contextlib.suppress(FileNotFoundError):
        while not (folder.is_dir() and any(folder.iterdir())):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.002)
    process.kill()
    process.communicate()
    summary = finish(start(tmp_path, 8, MESHES[8]))
    assert summary["step"] == 6
    assert summary["resumed_from"] in (0, 3)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5, 6]
