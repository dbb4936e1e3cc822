"""`umit eval` that is killed goes on where it stopped, and its predictions are those of one that was not."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.toy_evaluation import BATCH, RECORDS, ROOT, arguments, evaluate, make_work, one_device
from umit_jax.eval.partial import PartialAnswers
from umit_jax.infer.buckets import Answer

A, B = Answer([1, 2], [-0.5, -0.125], [-1.0, -2.5]), Answer([], [], None)

# `umit eval` whose fourth batch never comes.
HANGING = """
import sys, time
from launch import cli
from umit_jax.infer import buckets
real, calls = buckets.generate, []
def generate(*args, **kwargs):
    calls.append(1)
    if len(calls) == 4:
        time.sleep(600)
    return real(*args, **kwargs)
buckets.generate = generate
cli.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return make_work(tmp_path_factory.mktemp("work"))


def lines(path: pathlib.Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def kill_after_three_batches(work, out) -> None:
    call, pipe = [sys.executable, "-c", HANGING, *arguments(work, out)], subprocess.PIPE
    process = subprocess.Popen(call, cwd=ROOT, env=one_device(), stdout=pipe, stderr=pipe)
    deadline = time.monotonic() + 300
    while lines(out / ".answers.predictions.partial.jsonl") < 1 + 3 * BATCH - 1:  # one of the batches is not full
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)  # it hangs in the fourth batch by now
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()


@pytest.fixture(scope="module")
def whole(work):
    """The directory of an evaluation that nothing interrupted."""
    summary = evaluate(work, work / "whole")
    assert (summary["n"], summary["taken_over"]) == (RECORDS, 0)
    return work / "whole"


def test_a_killed_evaluation_goes_on_and_its_predictions_are_the_same_bytes(work, whole, tmp_path):
    kill_after_three_batches(work, tmp_path)
    assert not (tmp_path / "predictions.jsonl").exists()
    with open(tmp_path / ".answers.predictions.partial.jsonl", "ab") as file:
        file.write(b'{"index": 8, "id": "toy/8", "tok')  # as a kill in the middle of a write would leave it
    resumed = evaluate(work, tmp_path)
    assert resumed["n"] == RECORDS
    assert 3 * BATCH - 1 <= resumed["taken_over"] <= 3 * BATCH
    for name in ("predictions.jsonl", "scores.json"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in whole.iterdir())


def test_answers_of_other_weights_or_settings_are_not_taken_over(work, whole, tmp_path):
    ids = [f"toy/{i}" for i in range(RECORDS)]
    PartialAnswers(tmp_path / ".answers.predictions.partial.jsonl", "0" * 64, ids).add(dict.fromkeys(range(RECORDS), A))
    assert evaluate(work, tmp_path)["taken_over"] == 0
    assert (tmp_path / "predictions.jsonl").read_bytes() == (whole / "predictions.jsonl").read_bytes()


def test_only_whole_lines_of_the_same_key_and_records_are_known(tmp_path):
    path, ids = tmp_path / "partial.jsonl", ["a", "b", "c"]
    PartialAnswers(path, "key", ids).add({0: A, 2: B})
    assert PartialAnswers(path, "key", ids).known == {0: A, 2: B}
    assert PartialAnswers(path, "key", ["a", "b", "x"]).known == {0: A}
    cut = path.read_bytes()[:-3]
    path.write_bytes(cut)
    torn = PartialAnswers(path, "key", ids)
    assert torn.known == {0: A}
    torn.add({1: B})
    assert PartialAnswers(path, "key", ids).known == {0: A, 1: B}
    assert PartialAnswers(path, "another key", ids).known == {}
    assert PartialAnswers(path, "key", ids).known == {}
    path.write_bytes(os.urandom(64))
    assert PartialAnswers(path, "key", ids).known == {}
