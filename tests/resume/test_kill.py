"""6 steps == 3 + kill -9 + 3, in real processes that are really killed.

The processes share the tests' compilation cache, to save minutes; the one that goes on on one device compiles for
itself, as a restarted run does, so that its bits are equal only because the compiler is deterministic.
"""

import contextlib
import pathlib
import shutil
import signal
import time

import jax
import pytest

from tests.train.run_toy import assert_same_run, finish, start, together
from tests.train.toy import MODEL, lines, without_time
from umit_jax.model.param import init_params
from umit_jax.train.checkpoint import read_data, save_params


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
    summary = finish(start(tmp_path, devices, MESHES[devices], cache=devices > 1))
    assert (summary["resumed_from"], summary["compilations"]) == (3, 1)
    assert without_time(tmp_path) == without_time(whole[devices])


def test_a_killed_lora_run_goes_on_bit_for_bit(tmp_path):
    """On a quantised base, which is quantised again at the start of every process."""
    save_params(tmp_path / "base", init_params(MODEL, jax.random.key(0)))
    lora = {"lora__rank": 4, "lora__quantize": "nf4", "lora__full": ("projector/.*",)}
    run = {"config": lora, "base": tmp_path / "base" / "checkpoints" / "0"}
    finish(start(tmp_path / "whole", 1, MESHES[1], **run))
    kill_after(start(tmp_path / "killed", 1, MESHES[1], hang_at=6, **run), tmp_path / "killed" / "checkpoints" / "3")
    summary = finish(start(tmp_path / "killed", 1, MESHES[1], cache=False, **run))
    assert (summary["resumed_from"], summary["compilations"]) == (3, 1)
    assert without_time(tmp_path / "killed") == without_time(tmp_path / "whole")
    sums = [read_data(tmp_path / name / "checkpoints" / "6")["checksums"] for name in ("killed", "whole")]
    assert sums[0] == sums[1]
    assert not any(path.startswith("frozen/") for path in sums[0])


def test_a_run_killed_on_one_device_goes_on_on_eight(tmp_path, whole):
    shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "6")
    summary = finish(start(tmp_path, 8, MESHES[8]))
    assert summary["resumed_from"] == 3
    assert_same_run(tmp_path, whole[1])


def test_two_processes_stop_at_one_step_when_one_gets_sigterm_and_one_process_goes_on(tmp_path, whole):
    for status, out, err in together(tmp_path, 2, 2, {"fsdp": 4}, term_at=3, term_part=1):
        assert status == 75, err
        assert "asked to stop: step " in out
    saved = int(max((path.name for path in (tmp_path / "checkpoints").iterdir()), key=int))
    assert saved in (3, 4)
    summary = finish(start(tmp_path, 1, MESHES[1]))
    assert summary["resumed_from"] == saved
    assert_same_run(tmp_path, whole[1])


def test_a_run_killed_while_it_saves_leaves_no_half_checkpoint(tmp_path):
    """Killed at an arbitrary moment of the save: what is there afterwards is whole, and the run goes on from it."""
    process = start(tmp_path, 1, MESHES[1], hang_at=5)
    folder = tmp_path / "checkpoints"
    deadline = time.monotonic() + 300
    with contextlib.suppress(FileNotFoundError):
        while not (folder.is_dir() and any(folder.iterdir())):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.002)
    process.kill()
    process.communicate()
    summary = finish(start(tmp_path, 1, MESHES[1]))
    assert summary["step"] == 6
    assert summary["resumed_from"] in (0, 3)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5, 6]
