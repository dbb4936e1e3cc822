"""A batch on which the loss goes wrong is left out, and the run is that of a stream without it."""

import json
import re

import jax
import pytest

from tests.train.toy import MODEL, ToyStream, lines, toy_config, without_time
from umit_jax.parallel.mesh import make_mesh
from umit_jax.train.checkpoint import read_data
from umit_jax.train.loop import Diverged, train
from umit_jax.train.preemption import Preempted
from umit_jax.train.skipped import WINDOW, Judge, Skipped, SkippedError

SIX_OF_SEVEN = [f"step{batch}/row0/0" for batch in (1, 2, 3, 4, 6, 7)]


def run(workdir, stream, **changes):
    mesh = make_mesh({}, jax.devices()[:1])
    return train(toy_config(log_samples=True, **changes), MODEL, stream, workdir, mesh)


class Without(ToyStream):
    """The batches of a ToyStream but for one."""

    def __init__(self, batch):
        super().__init__()
        self.left_out = batch

    def batches(self, start_step):
        for number, taken in enumerate(super().batches(0), 1):
            if number != self.left_out and number - (number > self.left_out) > start_step:
                yield taken


@pytest.fixture(scope="module")
def went_back(tmp_path_factory):
    """(workdir, summary) of six steps whose fifth batch is bad."""
    workdir = tmp_path_factory.mktemp("went_back")
    return workdir, run(workdir, ToyStream(nan_at=5))


def test_the_bad_batch_is_left_out_and_the_run_goes_on_from_the_last_checkpoint(went_back, tmp_path):
    workdir, summary = went_back
    assert (summary["step"], summary["skipped_batches"], summary["compilations"]) == (6, [4], 1)
    run(tmp_path, Without(5))
    assert without_time(workdir) == without_time(tmp_path)
    assert [line["sample_ids"][0] for line in lines(workdir)] == SIX_OF_SEVEN


def test_what_was_left_out_is_noted_with_its_samples(went_back):
    (entry,) = map(json.loads, (went_back[0] / "skipped.jsonl").read_text().splitlines())
    assert (entry["batch"], entry["step"], entry["back_to"]) == (4, 5, 3)
    assert re.match(r"loss is \w+", entry["why"])
    assert (entry["sample_ids"][0], len(entry["sample_ids"])) == ("step5/row0/0", 16)
    assert read_data(went_back[0] / "checkpoints" / "6")["skipped"] == [4]


def test_time_taken_back_counts_as_lost(went_back):
    seconds = went_back[1]["goodput"]["seconds"]
    assert seconds["restart"] > 0
    assert went_back[1]["goodput"]["share"] == pytest.approx(seconds["step"] / sum(seconds.values()), abs=0.01)


def test_a_run_that_stops_after_it_went_back_goes_on_without_the_batch(went_back, tmp_path):
    with pytest.raises(Preempted):
        run(tmp_path, ToyStream(nan_at=2, term_at=5))
    summary = run(tmp_path, ToyStream(nan_at=2))
    assert (summary["skipped_batches"], summary["step"]) == ([1], 6)
    assert [line["sample_ids"][0] for line in lines(tmp_path)][:3] == [f"step{i}/row0/0" for i in (1, 3, 4)]


def test_it_stops_once_too_many_batches_were_left_out(tmp_path):
    with pytest.raises(Diverged, match=r"step 2: loss is .*; 2 batches were left out before; samples: step4/row0/0, "):
        run(tmp_path, ToyStream(nan_at=(2, 3, 4)), rollbacks=2)
    noted = [json.loads(line)["batch"] for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert noted == [1, 2]


def test_steps_are_numbered_around_the_batches_left_out(tmp_path):
    skipped = Skipped(tmp_path)
    skipped.include([1, 2, 6])
    assert [skipped.batch_of(step) for step in range(1, 7)] == [0, 3, 4, 5, 7, 8]
    skipped.add({"batch": 0})
    assert [skipped.batch_of(step) for step in range(1, 4)] == [3, 4, 5]
    assert Skipped(tmp_path).batches == [0]


def test_a_torn_list_of_batches_is_named(tmp_path):
    (tmp_path / "skipped.jsonl").write_text('{"batch": 4}\n{"ba')
    with pytest.raises(SkippedError, match=r"skipped.jsonl:2: expected a line with a batch"):
        Skipped(tmp_path)


def judged(judge, losses):
    return [judge.why({"loss": loss, "grad_norm": 1.0}) for loss in losses]


def test_a_loss_jumps_when_it_is_far_above_all_of_the_last_steps():
    judge = Judge(3.0)
    assert judged(judge, [2.0] * (WINDOW - 1) + [7.0]) == [None] * WINDOW  # too early to know
    assert judged(judge, [20.9]) == [None]
    assert judged(judge, [63.0, 2.0]) == ["loss is 63, more than 3 times 20.9", None]
    assert judged(Judge(0.0), [1.0] * WINDOW + [1e9]) == [None] * (WINDOW + 1)
    assert judge.why({"loss": 2.0, "grad_norm": float("nan")}) == "grad_norm is nan"
    assert judged(Judge(3.0, judge.recent), [63.0]) == ["loss is 63, more than 3 times 20.9"]
