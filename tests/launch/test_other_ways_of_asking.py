"""`umit eval --robustness` asks again in each way, and `umit score` repeats its numbers from the files."""

import json
import os

import pytest

from launch import cli
from tests.toy_evaluation import RECORDS, arguments, make_work

WAYS = ["blank", "swap", "options", "negated", "corrupt:gaussian_noise:2"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return make_work(tmp_path_factory.mktemp("work"))


@pytest.mark.slow
def test_every_way_has_its_predictions_and_rows_that_score_repeats(work, tmp_path, capsys):
    out, again = tmp_path / "out", tmp_path / "again"
    out.mkdir()
    for stale in ("predictions.flip.jsonl", "predictions.flip.left_out.json", "predictions.old.jsonl"):
        (out / stale).write_text("of an earlier run")
    assert cli.main(arguments(work, out, flags=["--robustness", *WAYS, "--specificity", "0.5"])) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["left_out"]["blank"] == summary["left_out"]["swap"] == {}
    assert summary["left_out"]["options"] == summary["left_out"]["negated"] == {"no options": 2 * RECORDS // 3}
    assert not {"predictions.flip.jsonl", "predictions.flip.left_out.json"} & set(os.listdir(out))
    assert (out / "predictions.old.jsonl").read_text() == "of an earlier run"  # a file that umit eval never writes
    assert summary["not_read"] == ["predictions.old.jsonl"]
    assert set(summary["refused"]) == {"vqa", "detection"}
    files = {"predictions.jsonl", *(f"predictions.{way.replace(':', '_')}.jsonl" for way in WAYS)}
    assert files <= set(os.listdir(out))
    listed = json.loads((out / "predictions.negated.left_out.json").read_text())
    assert listed[0] == {"id": "toy/1", "reason": "no options"}
    lines = {name: [json.loads(text) for text in (out / name).read_text().splitlines()] for name in files}
    assert len({line["run"] for own in lines.values() for line in own}) == 1
    assert len(lines["predictions.negated.jsonl"]) == RECORDS // 3
    main, negated = lines["predictions.jsonl"][0], lines["predictions.negated.jsonl"][0]
    assert (main["truth"]["index"], negated["truth"]["index"]) == (0, 1)
    assert lines["predictions.blank.jsonl"][0]["scores"] != main["scores"]
    rows = json.loads((out / "robustness.json").read_text())
    assert {row["variant"] for row in rows} == set(WAYS)
    assert all(row["n"] > 0 for row in rows)
    points = [
        r for r in json.loads((out / "scores.json").read_text()) if r["metric"] == "sensitivity_at_specificity_0.5"
    ]
    assert {row["class"] for row in points} == {"yes", "no"}
    assert cli.main(["score", str(out), "--out", str(again), "--specificity", "0.5"]) == 0
    for name in ("robustness.json", "scores.json"):
        assert (again / name).read_bytes() == (out / name).read_bytes()


def test_an_unknown_way_is_refused_before_anything_is_loaded(tmp_path, capsys):
    assert cli.main(arguments(tmp_path, tmp_path / "out", flags=["--robustness", "blnk"])) == 2
    assert "robustness: expected blank, swap, options" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
