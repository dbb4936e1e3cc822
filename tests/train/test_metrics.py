import json

import numpy as np
import pytest

from umit_jax.batch import TASKS
from umit_jax.train.metrics import LogError, MetricsLog, Totals, row, truncate


def metrics(loss=6.0, weight=3.0, tokens=50):
    per_task = np.zeros(len(TASKS)), np.zeros(len(TASKS))
    per_task[0][1], per_task[1][1] = loss, weight
    return {
        "loss_sum": np.float32(loss),
        "weight": np.float32(weight),
        "loss_sum_T": per_task[0],
        "weight_T": per_task[1],
        "learning_rate": np.float32(0.5),
        "grad_norm": np.float32(1.5),
        "tokens": np.int32(tokens),
        "patches": np.int32(0),
    }


def test_a_line_divides_sums_by_weights_and_leaves_out_absent_tasks():
    line = row(4, metrics(), (100, 0), 0.25)
    assert (line["step"], line["loss"], line["weight"]) == (4, 2.0, 3.0)
    assert line["loss_per_task"] == {"report": 2.0}
    assert (line["fill_tokens"], line["fill_patches"]) == (0.5, 0.0)


def test_a_batch_without_weight_has_loss_zero():
    assert row(1, metrics(0.0, 0.0), (100, 4), 0.1)["loss"] == 0.0


def test_totals_go_on_after_a_restart():
    whole, first = Totals(), Totals()
    lines = [row(i, metrics(tokens=10 * i), (100, 4), 0.1) for i in range(1, 7)]
    for line in lines:
        whole.add(line)
    for line in lines[:3]:
        first.add(line)
    second = Totals(json.loads(json.dumps(first.to_json())))
    for line in lines[3:]:
        second.add(line)
    assert second.to_json() == whole.to_json()
    assert whole.tokens_seen == 210
    assert whole.fill_tokens == pytest.approx(0.35)


@pytest.mark.parametrize("tail", ["", '{"step": 6, "lo', "garbage\n"])
def test_truncate_cuts_later_steps_and_a_torn_line(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": i}) + "\n" for i in range(1, 6)) + tail)
    truncate(path, 3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_truncate_without_a_file_does_nothing(tmp_path):
    truncate(tmp_path / "metrics.jsonl", 3)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_full_disk_names_the_file_and_the_step(tmp_path):
    log = MetricsLog(tmp_path, 0, write=True)
    log._file = open("/dev/full", "w")  # noqa: SIM115 (the log closes it)
    with pytest.raises(LogError, match=r"metrics.jsonl: step 7 not written: No space left on device"):
        log.write({"step": 7})
    log.close()
