"""`umit score` on damaged input: status 2, one line that names file and field, and the output folder as before."""

import json
import math
import os
import pathlib
import shutil

import pytest

from launch import cli

EXAMPLE = pathlib.Path(__file__).parents[2] / "docs" / "example_report"


@pytest.fixture
def run(tmp_path):
    """A folder as `umit eval` leaves one, with few questions and one other way of asking."""
    folder = tmp_path / "run"
    shutil.copytree(EXAMPLE / "report_files", folder / "report_files")
    lines = (EXAMPLE / "predictions.jsonl").read_text("utf-8").splitlines()[:6]
    (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    blank = [json.dumps({**json.loads(text), "variant": "blank"}, ensure_ascii=False) for text in lines]
    (folder / "predictions.blank.jsonl").write_text("\n".join(blank) + "\n", "utf-8")
    return folder


def change(path, number, **values):
    """A line of a predictions.jsonl with other values; of a truth, as truth={...}, only those that are named."""
    lines = [json.loads(text) for text in path.read_text("utf-8").splitlines()]
    values = {key: lines[number][key] | value if isinstance(value, dict) else value for key, value in values.items()}
    lines[number] |= values
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def cut(path):
    path.write_bytes(path.read_bytes()[:-300])


def bare_frame(**values):
    return {"frame": {"name": "raw", "size": [100.0, 100.0], "mm_per_unit": None} | values}


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


DAMAGES = {
    "a variant that was cut off": (
        lambda run: cut(run / "predictions.blank.jsonl"),
        "/predictions.blank.jsonl:6: not JSON, or cut off",
    ),
    "a variant of another run": (
        lambda run: change(run / "predictions.blank.jsonl", 0, run="other"),
        "/predictions.blank.jsonl: not of the run that wrote",
    ),
    "a variant of another question": (
        lambda run: change(run / "predictions.blank.jsonl", 0, id="other"),
        "variant blank: id 'other' is not among the main predictions",
    ),
    "pictures that were cut off": (
        lambda run: cut(run / "report_files" / "pictures.json"),
        "/report_files/pictures.json: ",
    ),
    "pictures nested without end": (
        lambda run: (run / "report_files" / "pictures.json").write_text("[" * 100_000),
        "/report_files/pictures.json: ",
    ),
    "a truth without a number": (
        lambda run: change(run / "predictions.jsonl", 0, truth={"items": [{"label": "a", "box": [0, 0, 1, math.nan]}]}),
        "/predictions.jsonl:1: truth: target.items: box of 'a': expected finite numbers",
    ),
    "a spacing without a number": (
        lambda run: change(run / "predictions.jsonl", 0, truth=bare_frame(mm_per_unit=[math.nan, 1])),
        "/predictions.jsonl:1: truth: frame.mm_per_unit: expected 2 positive numbers or null",
    ),
    "half a character": (
        lambda run: change(run / "predictions.jsonl", 2, topic="\ud800"),
        "/predictions.jsonl:3: topic: half of a character",
    ),
    "no predictions": (lambda run: os.remove(run / "predictions.jsonl"), "/predictions.jsonl"),
    "no folder": (shutil.rmtree, "/run"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("there", [False, True])
def test_damaged_input_is_one_line_and_changes_nothing(damage, there, run, tmp_path, capsys):
    out, before = tmp_path / "out", {}
    if there:
        assert cli.main(["score", str(run), "--out", str(out)]) == 0
        (out / "scores.json").write_text("of another model")
        before = everything(out)
    capsys.readouterr()
    spoil, message = DAMAGES[damage]
    spoil(run)
    assert cli.main(["score", str(run), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("umit score: ")
    assert message in line
    if there:
        assert everything(out) == before
    else:
        assert not out.exists()


def test_predictions_that_are_no_way_of_asking_are_named_and_not_read(run, tmp_path, capsys):
    (run / "predictions.old.jsonl").write_text("not predictions")
    assert cli.main(["score", str(run), "--out", str(tmp_path / "out"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["not_read"] == ["predictions.old.jsonl"]
    assert (run / "predictions.old.jsonl").exists()
    rows = json.loads((tmp_path / "out" / "robustness.json").read_text())
    assert {row["variant"] for row in rows} == {"blank"}


def test_files_of_an_earlier_score_that_are_not_written_again_go(run, tmp_path):
    out = tmp_path / "out"
    assert cli.main(["score", str(run), "--out", str(out)]) == 0
    assert (out / "robustness.json").exists()
    (run / "predictions.blank.jsonl").unlink()
    (out / "mine.txt").write_text("kept")
    assert cli.main(["score", str(run), "--out", str(out)]) == 0
    expected = {"scores.json", "breakdown.json", "report.html", "report_files", "summary.json", "mine.txt"}
    assert set(os.listdir(out)) == expected


def test_an_error_while_writing_leaves_the_files_of_before(run, tmp_path, capsys, monkeypatch):
    from umit_jax.eval.report_html import page

    out = tmp_path / "out"
    assert cli.main(["score", str(run), "--out", str(out)]) == 0
    before = everything(out)
    change(run / "predictions.jsonl", 2, text="1:yes")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "render", full)
    assert cli.main(["score", str(run), "--out", str(out)]) == 1
    assert everything(out) == before
    assert cli.main(["score", str(run), "--out", str(tmp_path / "new")]) == 1
    assert not (tmp_path / "new").exists()
    assert capsys.readouterr().err.splitlines()[-1] == f"umit score: {tmp_path / 'new'}: No space left on device"


def test_the_page_in_the_docs_is_what_its_command_makes_today(tmp_path):
    assert cli.main(["score", str(EXAMPLE), "--specificity", "0.8", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").read_bytes() == (EXAMPLE / "report.html").read_bytes()
    assert everything(tmp_path / "report_files") == everything(EXAMPLE / "report_files")


def test_two_runs_name_what_neither_of_them_has(run, tmp_path, capsys):
    call = ["score", str(run), str(run), "--out", str(tmp_path / "out"), "--mode", "vila_m3", "--json"]
    assert cli.main(call) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["not_compared"] == []
    assert any(reason.startswith("undefined") for reason in summary["not_computed"].values())
    assert set(summary["refused"]) == {"a", "b"}
    assert os.listdir(tmp_path / "out").count("comparison.json") == 1
