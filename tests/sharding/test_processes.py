"""Several processes give the run of one: losses, samples, one program; and go on from each other's checkpoints."""

import json
import re

import pytest

from tests.train.run_toy import assert_same_run, finish, start, together
from tests.train.toy import lines

STREAM = {"text_only": (2, 4)}  # in these batches the rows of the first half, so of the first process, have no image


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The workdir of six steps of one process on one device."""
    workdir = tmp_path_factory.mktemp("alone")
    finish(start(workdir, 1, {}, **STREAM))
    return workdir


def assert_all_done(ended):
    for status, out, err in ended:
        assert status == 0, err
        summary = json.loads(out.splitlines()[-1])
        assert (summary["step"], summary["compilations"]) == (6, 1)


def test_two_processes_equal_one_with_and_without_images_in_a_process_s_rows(tmp_path, alone):
    assert_all_done(together(tmp_path, 2, 1, {"fsdp": 2}, **STREAM))
    assert_same_run(tmp_path, alone)
    patches = [line["fill_patches"] for line in lines(tmp_path)]
    assert patches[1] == patches[3] == patches[0] / 2


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [{"data": 2, "fsdp": 2}, {"fsdp": 2, "tensor": 2}])
def test_four_processes_equal_one(tmp_path, alone, mesh):
    assert_all_done(together(tmp_path, 4, 1, mesh, **STREAM))
    assert_same_run(tmp_path, alone)


@pytest.mark.slow
def test_a_run_goes_on_on_fewer_processes_and_on_another_mesh(tmp_path, alone):
    """Four processes, then two, then one, each stopped by a SIGTERM to one of its processes."""
    for status, _, err in together(tmp_path, 4, 1, {"fsdp": 4}, term_at=1, term_part=2, **STREAM):
        assert status == 75, err
    for status, _, err in together(tmp_path, 2, 2, {"data": 2, "fsdp": 2}, term_at=4, **STREAM):
        assert status == 75, err
    resumed = finish(start(tmp_path, 8, {"data": 2, "fsdp": 2, "tensor": 2}, **STREAM))["resumed_from"]
    assert resumed in (4, 5)
    assert_same_run(tmp_path, alone)


@pytest.mark.slow
def test_processes_of_which_one_hangs_end_with_the_stacks_of_all_threads(tmp_path):
    ended = together(tmp_path, 2, 1, {"fsdp": 2}, config={"watchdog_seconds": 8.0}, hang_at=4, hang_part=1)
    statuses = [status for status, _, _ in ended]
    assert 70 in statuses
    assert all(status not in (0, 75) for status in statuses)
    stuck = ended[statuses.index(70)][2]
    assert re.search(r"watchdog: nothing happened for 8 s after (step|the checkpoint of step) [123] ", stuck)
    assert "Current thread" in stuck
