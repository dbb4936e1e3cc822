"""The loop in this process; killed processes are in tests/resume."""

import json
import logging
import re

import jax
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from tests.train.toy import FROZEN_TOWER, MODEL, ToyStream, lines, toy_config, without_time
from umit_jax.parallel.mesh import MeshError, make_mesh
from umit_jax.train.checkpoint import load_params, read_metadata
from umit_jax.train.loop import BatchError, Diverged, train
from umit_jax.train.optimizer import OptimizerError
from umit_jax.train.preemption import Preempted
from umit_jax.train.workdir import WorkdirError


def run(workdir, stream=None, init_params=None, **changes):
    mesh = make_mesh({}, jax.devices()[:1])
    return train(toy_config(**changes), MODEL, stream or ToyStream(), workdir, mesh, init_params)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(workdir, summary) of six uninterrupted steps."""
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, run(workdir, log_samples=True)


def test_every_step_is_a_line_and_the_summary_sums_them_up(finished):
    workdir, summary = finished
    written = lines(workdir)
    assert [line["step"] for line in written] == [1, 2, 3, 4, 5, 6]
    assert set(written[0]) >= {"loss", "weight", "loss_per_task", "learning_rate", "grad_norm", "tokens", "fill_tokens"}
    assert set(written[0]["loss_per_task"]) == {"vqa", "report"}
    assert (summary["step"], summary["loss"]) == (6, written[-1]["loss"])
    assert summary["loss_per_task"] == written[-1]["loss_per_task"]
    assert summary["tokens_seen"] == sum(line["tokens"] for line in written)
    assert summary["fill_tokens"] == pytest.approx(np.mean([line["fill_tokens"] for line in written]))
    assert summary["compilations"] == 1


def test_samples_are_logged_in_order_when_asked_for(finished):
    written = lines(finished[0])
    assert written[2]["sample_ids"][:3] == ["step3/row0/0", "step3/row0/1", "step3/row1/0"]
    assert len({sample for line in written for sample in line["sample_ids"]}) == 6 * 8 * 2


def test_what_augmentation_did_is_in_every_line_and_its_sum_in_the_summary(finished):
    workdir, summary = finished
    assert [line["augmented"] for line in lines(workdir)] == [{"flip": {"done": 15, "not drawn": 1}}] * 6
    assert [line["counts"] for line in lines(workdir)] == [{"toy": {"vqa": {"samples": 8}}}] * 6
    assert summary["augmented"] == {"flip": {"done": 90, "not drawn": 6}}


def test_scalars_reach_tensorboard(finished):
    (path,) = (finished[0] / "tensorboard").iterdir()
    content, tags, at = path.read_bytes(), set(), 0
    while at < len(content):  # records: length (8), checksum (4), event, checksum (4)
        length = int.from_bytes(content[at : at + 8], "little")
        event = event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
        tags |= {value.tag for value in event.summary.value}
        at += 16 + length
    assert {"loss", "loss/vqa", "learning_rate", "grad_norm"} <= tags


def test_a_finished_run_has_nothing_left_to_do(finished):
    workdir, first = finished
    again = run(workdir, log_samples=True)
    assert (again["step"], again["loss"], again["compilations"]) == (6, first["loss"], 0)
    assert again["tokens_seen"] == first["tokens_seen"]
    assert len(lines(workdir)) == 6


def test_preempted_runs_save_and_go_on_without_repeating_or_losing_a_step(finished, tmp_path):
    with pytest.raises(Preempted, match=r"asked to stop: step 2 of 6 is saved; the same command resumes"):
        run(tmp_path, ToyStream(term_at=2), log_samples=True)
    assert read_metadata(tmp_path / "checkpoints" / "2").position == 2
    summary = run(tmp_path, log_samples=True)
    assert summary["resumed_from"] == 2
    assert summary["compilations"] == 1
    assert without_time(tmp_path) == without_time(finished[0])


def test_a_loss_that_is_not_finite_stops_with_step_and_samples_and_leaves_the_last_good_checkpoint(tmp_path):
    with pytest.raises(Diverged) as caught:
        run(tmp_path, ToyStream(nan_at=5), rollbacks=0)
    message = str(caught.value)
    assert re.match(
        r"step 5: loss is \w+, grad_norm is \w+; samples: step5/row0/0, step5/row0/1, step5/row1/0", message
    )
    assert "step5/row7/1" in message
    assert "\n" not in message
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]


def test_a_bad_step_at_which_a_checkpoint_is_due_is_not_saved(tmp_path):
    with pytest.raises(Diverged, match="step 3: "):
        run(tmp_path, ToyStream(nan_at=3), rollbacks=0)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_stage_two_starts_from_the_parameters_of_stage_one(finished, tmp_path):
    checkpoint = finished[0] / "checkpoints" / "6"
    summary = run(
        tmp_path,
        init_params=lambda shardings: load_params(checkpoint, MODEL, shardings),
        optimizer__patterns=FROZEN_TOWER,
        checkpoint_every=1,
        keep=6,
    )
    first, second = load_params(checkpoint, MODEL), load_params(tmp_path / "checkpoints" / "1", MODEL)
    jax.tree.map(np.testing.assert_array_equal, first["vision"], second["vision"])
    moved = jax.tree.map(lambda x, y: float(np.max(np.abs(x - y))), first["decoder"], second["decoder"])
    assert 0 < max(jax.tree.leaves(moved)) < 0.01
    assert summary["frozen_parameters"] == sum(leaf.size for leaf in jax.tree.leaves(first["vision"]))
    assert lines(tmp_path)[0]["loss"] < lines(finished[0])[0]["loss"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data__row_tokens": 128}, r"config.data.row_tokens was 4096 when this workdir was started, now 128"),
        ({"optimizer__learning_rate": 0.5}, r"config.optimizer.learning_rate was 0.01 .* now 0.5"),
        ({"optimizer__patterns": FROZEN_TOWER}, r"config.optimizer.patterns was \[\] .* now"),
        ({"model": "7b"}, r'config.model was "toy" .* now "7b"'),
        ({"seed": 1}, r"config.seed was 0 .* now 1"),
    ],
)
def test_a_workdir_of_another_config_names_the_key(finished, change, message):
    with pytest.raises(WorkdirError, match=f"{finished[0]}/config.json: {message}"):
        run(finished[0], log_samples=True, **change)


def test_how_a_run_is_carried_out_may_change(finished):
    changes = {"log_every": 2, "checkpoint_every": 1, "keep": 9, "mesh__tensor": 2, "remat": "full", "data__workers": 1}
    assert run(finished[0], **changes)["step"] == 6


def test_config_json_is_the_config(finished):
    assert json.loads((finished[0] / "config.json").read_text())["data"]["rows"] == 8


def test_configs_that_cannot_run_are_refused_before_anything_is_compiled(tmp_path):
    with pytest.raises(OptimizerError, match="visoin"):
        run(tmp_path / "a", optimizer__patterns=(("visoin/.*", None),))
    with pytest.raises(MeshError, match=r"data.rows: expected a multiple of"):
        train(toy_config(data__rows=6), MODEL, ToyStream(), tmp_path / "b", make_mesh({"fsdp": -1}))


def test_a_batch_that_does_not_fit_the_model_is_refused_by_field(tmp_path):
    class Foreign(ToyStream):
        def batches(self, start_step):
            for batch, info in super().batches(start_step):
                batch.tokens_BS[0, 0] = 64
                yield batch, info

    with pytest.raises(BatchError, match=r"tokens_BS: expected ids 0..63 of the model's vocabulary, found \d+..64"):
        run(tmp_path / "a", Foreign())
    with pytest.raises(BatchError, match=r"data.rows: expected 8 rows of all processes, found 4"):
        run(tmp_path / "b", ToyStream(rows=4))


def test_a_batch_of_another_shape_is_refused_and_not_compiled_for(tmp_path):
    class Uneven(ToyStream):
        def batches(self, start_step):
            for step, (batch, info) in enumerate(super().batches(start_step)):
                yield (batch if step < 2 else batch._replace(tokens_BS=batch.tokens_BS[:, :-1])), info

    with pytest.raises(BatchError, match=r"step 3: expected a batch of the first one's shapes .*'tokens_BS': "):
        run(tmp_path, Uneven())


def test_a_stream_that_ends_early_is_an_error(tmp_path):
    with pytest.raises(BatchError, match="data: the stream ended after 2 of 6 steps"):
        run(tmp_path, ToyStream(end_at=2))


def test_a_log_shows_plain_lines_with_the_time_left(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="umit_jax.train"):
        run(tmp_path)
    shown = [record.message for record in caplog.records if record.message.startswith("step ")]
    assert re.match(r"step 1/6  loss \d\.\d{4}  lr 5.00e-03 .* eta ", shown[0])
    assert re.match(r"step 6/6 .* eta 0:00:00", shown[-1])
