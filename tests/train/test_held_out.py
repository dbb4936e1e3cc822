"""Evaluation while training, with a number that is made of the parameters; with real questions in tests/launch."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch import workdir as workdirs
from launch.cli import UsageError
from tests.train.toy import MODEL, ToyStream, lines, toy_config, without_time
from umit_jax.eval.named import Named
from umit_jax.parallel.mesh import make_mesh
from umit_jax.train.checkpoint import load_params, read_data
from umit_jax.train.held_out import Evaluations
from umit_jax.train.loop import train
from umit_jax.train.metrics import MetricsLog
from umit_jax.train.preemption import Preempted
from umit_jax.train.state import TrainState

NAME = "vqa/closed_accuracy"


class Size:
    """A metric that every step changes; higher is better. script: values to give instead, one after the other."""

    def __init__(self, every=2, best=NAME, settings="same", script=(), higher=True):
        self.every, self.best, self.settings, self.higher = every, best, settings, higher
        self.script = list(script)

    def __call__(self, config, params, alive):
        alive()
        value = self.script.pop(0) if self.script else size_of(params)
        return {NAME: Named(value, self.higher, 1), "vqa/unparsed": Named(0.25, False, 1)}


def size_of(params) -> float:
    return float(np.abs(np.asarray(params["decoder"]["embed"]["embedding"])).sum())


def run(workdir, held_out=None, stream=None, **changes):
    mesh = make_mesh({}, jax.devices()[:1])
    config = toy_config(log_samples=True, **changes)
    return train(config, MODEL, stream or ToyStream(), workdir, mesh, held_out=held_out)


def evaluations(workdir) -> dict[int, float]:
    return {line["step"]: line["evaluation"][NAME] for line in lines(workdir) if "evaluation" in line}


def kept(workdir) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(workdir, summary) of six uninterrupted steps, evaluated every second one."""
    workdir = tmp_path_factory.mktemp("evaluated")
    return workdir, run(workdir, Size())


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """(workdir, summary) of the same six steps without any evaluation."""
    workdir = tmp_path_factory.mktemp("bare")
    return workdir, run(workdir)


def test_the_steps_are_the_same_with_and_without(finished, bare):
    workdir, summary = bare
    without = [{key: value for key, value in line.items() if key != "evaluation"} for line in without_time(finished[0])]
    assert without == without_time(workdir)
    assert "evaluation" not in summary
    assert "evaluation" not in read_data(workdir / "checkpoints" / "6")


def test_a_run_that_looked_for_none_has_no_best(bare):
    with pytest.raises(UsageError, match=f"--checkpoint: {bare[0]} has no best checkpoint: config.evaluate.best"):
        workdirs.find(bare[0] / "best")


def test_what_is_evaluated_are_the_parameters_after_that_step(finished):
    workdir, summary = finished
    found = evaluations(workdir)
    assert list(found) == [2, 4, 6]
    assert found[6] == size_of(load_params(workdir / "checkpoints" / "6", MODEL))
    assert len(set(found.values())) == 3
    assert summary["evaluation"]["last"] == {"step": 6, "scores": {NAME: found[6], "vqa/unparsed": 0.25}}


def test_its_time_is_a_phase_of_its_own_and_it_reaches_tensorboard(finished):
    workdir, summary = finished
    timed = [line["time"].get("evaluate", 0) > 0 for line in lines(workdir)]
    assert timed == [False, True] * 3
    assert "evaluate" in summary["goodput"]["seconds"]
    content = b"".join(path.read_bytes() for path in (workdir / "tensorboard").iterdir())
    assert f"evaluation/{NAME}".encode() in content


def test_the_best_step_stays_beside_the_newest_and_can_be_asked_for(tmp_path):
    summary = run(tmp_path, Size(script=(0.1, 0.9, 0.5), higher=False), keep=1, checkpoint_every=3)
    assert kept(tmp_path) == [2, 6]
    best = summary["evaluation"]["best"]
    assert best == {"metric": NAME, "value": 0.1, "direction": "lower", "step": 2, "settings": "same"}
    assert read_data(tmp_path / "checkpoints" / "6")["evaluation"]["best"] == best
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert workdirs.find(tmp_path / "best").step == 2
    assert workdirs.find(tmp_path).step == 6


def test_a_run_that_was_stopped_has_the_losses_and_evaluations_of_one_that_was_not(finished, tmp_path):
    with pytest.raises(Preempted, match="step 4 of 6 is saved"):
        run(tmp_path, Size(), ToyStream(term_at=4))
    assert list(evaluations(tmp_path)) == [2]  # who is asked to stop where one is due has little time
    summary = run(tmp_path, Size())
    assert without_time(tmp_path) == without_time(finished[0])
    assert summary["evaluation"] == finished[1]["evaluation"]


def test_the_best_so_far_survives_a_restart_and_a_bad_step(tmp_path):
    changes = {"keep": 1, "checkpoint_every": 3}
    with pytest.raises(Preempted):
        run(tmp_path, Size(script=[0.9]), ToyStream(term_at=3), **changes)
    assert kept(tmp_path) == [2, 3]
    summary = run(tmp_path, Size(script=[0.5, 0.6, 0.7]), ToyStream(nan_at=6), **changes)
    assert summary["skipped_batches"] == [5]
    assert (summary["evaluation"]["best"]["step"], summary["evaluation"]["best"]["value"]) == (2, 0.9)
    assert kept(tmp_path) == [2, 6]


def evaluated(held_out, steps, saved=None, dtype="float32") -> Evaluations:
    """Evaluations of parameters that no training changes."""
    state = TrainState({"decoder": {"embed": {"embedding": jnp.arange(3.0) / 7}}}, {}, {}, 0)
    found = Evaluations(held_out, MODEL, state, dtype)
    found.take(saved)
    for step in steps:
        found.run(step, state, lambda: None)
    return found


@pytest.mark.parametrize(("higher", "best"), [(True, 4), (False, 2)])
def test_the_best_is_the_first_of_the_best_values_in_the_direction_of_the_metric(higher, best):
    assert evaluated(Size(script=[0.5, 0.9, 0.5, 0.9], higher=higher), (2, 4, 6, 8)).best_step == best


def test_without_a_metric_there_is_no_best():
    found = evaluated(Size(best=""), (2,))
    assert found.best is None
    assert found.to_json()["evaluation"]["last"]["step"] == 2


def test_another_evaluation_is_not_compared_with_the_one_before():
    before = evaluated(Size(script=[0.9]), (2,)).to_json()["evaluation"]
    assert evaluated(Size(script=[0.5]), (4,), before).best_step == 2
    after = evaluated(Size(script=[0.5, 0.1], settings="other"), (4, 6), before).best
    assert after is not None
    assert (after["step"], after["value"], after["settings"]) == (4, 0.5, "other")


def test_a_metric_that_is_undefined_is_said_and_not_compared(caplog):
    assert evaluated(Size(best="vqa/auc"), (2,)).best is None
    assert [record.message for record in caplog.records] == [
        "step 2: vqa/auc is undefined on these answers: not compared"
    ]


def test_parameters_are_evaluated_in_the_dtype_that_the_run_computes_in():
    rounded, exact = (
        evaluated(Size(), (2,), dtype=dtype).to_json()["evaluation"]["last"]["scores"][NAME]
        for dtype in ("bfloat16", "float32")
    )
    assert rounded == float(jnp.abs((jnp.arange(3.0) / 7).astype(jnp.bfloat16)).sum())
    assert rounded != exact


def test_adding_an_evaluation_to_the_last_line_twice_changes_nothing(tmp_path):
    log = MetricsLog(pathlib.Path(tmp_path), 0, write=True)
    for step in (1, 2):
        log.write({"step": step, "loss": 1.0})
    for _ in range(2):
        log.amend(2, {NAME: 0.5})
    log.write({"step": 3, "loss": 1.0})
    log.close()
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert written == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 1.0, "evaluation": {NAME: 0.5}},
        {"step": 3, "loss": 1.0},
    ]
