import pytest

from launch import cli


def refusal(capsys, *args):
    assert cli.main([str(arg) for arg in args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("runner", ["direkt", "flink"])
def test_a_misspelt_runner_is_refused_before_anything_is_converted(runner, tmp_path, capsys):
    line = refusal(capsys, "prepare", "phantom", "--patients", 4, "--out", tmp_path / "out", "--runner", runner)
    assert line.startswith("umit prepare: --runner: expected direct or a runner of Apache Beam")
    assert not (tmp_path / "out").exists()


def test_predictions_that_were_cut_off_are_named_by_file_and_line(tmp_path, capsys):
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"id": "a", "task": "vqa", "data')
    assert f"{path}:1: not JSON, or cut off" in refusal(capsys, "score", path, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_error_of_a_config_file_is_its_own_line(tmp_path, capsys):
    line = refusal(capsys, "train", "--config", "configs/umit.py:stage3", "--workdir", tmp_path)
    assert line == "umit train: --config=configs/umit.py:stage3: umit: expected stage1 or stage2, found 'stage3'"
