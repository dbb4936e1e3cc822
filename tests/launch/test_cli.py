"""What a user sees when something is wrong: one line naming the file, field or flag, and exit status 1 or 2."""

import json
import shutil
import subprocess
import sys

import pytest

from launch import cli
from tests.launch.conftest import CONFIGS, ROOT, train_arguments, umit


def one_line(done):
    lines = [line for line in done.stderr.splitlines() if line.startswith("umit")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["prepair"], "did you mean prepare?"),
        (["prepare", "phantom", "--patiens", "3"], "--patiens (did you mean --patients?)"),
        (["prepare", "phantm", "--out", "x"], "did you mean phantom?"),
        (["train", "--confg", "x", "--workdir", "y"], "unknown argument --confg (did you mean --config?)"),
        (["launch", "local", "--confg=x", "--workdir", "y"], "unknown argument --confg (did you mean --config?)"),
        (["launch", "gke", "--topolgy", "v5e-16"], "unknown argument --topolgy (did you mean --topology?)"),
        (["train", "--workdir", "y", "--config", "x", "--config.steps", "3"], "KEY=VALUE, found --config.steps"),
        (["prepare", "phantom", "--out", "x"], "--patients"),
        (["prepare", "dicom_folder", "--out", "x", "--source", "/nowhere"], "--source"),
        (["train", "--config", "nowhere.py", "--workdir", "x"], "nowhere.py"),
        (["prepare", "nifti_folder", "--window", "lung+bone"], "expected one or three of angio, bone"),
        (["prepare", "nifti_folder", "--spacing", "1x0x2.5"], "expected millimetres XxYxZ as in 0.8x0.8x2.5"),
        (["inspect", "/nowhere"], "/nowhere"),
        (["score", "/nowhere.jsonl", "--out", "x"], "/nowhere.jsonl"),
        (["export", "/nowhere", "--out", "x"], "/nowhere"),
        (["predict", "--checkpoint", "/nowhere"], "--prompt"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(argv, said, capsys):
    assert cli.main(argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("--config.optimizer.learning_rat=1", "learning_rat' in config.optimizer (did you mean learning_rate?)"),
        ("--config.stepz=1", "did you mean steps?"),
        ("--config.steps=many", "steps"),
    ],
)
def test_config_typo_names_the_nearest_key(override, said, tmp_path, capsys):
    argv = ["train", f"--config={CONFIGS / 'stage1_align.py'}", "--workdir", str(tmp_path / "w"), override]
    assert cli.main(argv) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_sources_that_are_no_shards_are_named(tmp_path, capsys):
    config = f"--config={CONFIGS / 'stage1_align.py'}"
    argv = ["train", config, "--workdir", str(tmp_path / "w"), f"--config.data.sources=(('{tmp_path}', 1.0),)"]
    assert cli.main(argv) == 2
    assert "manifest.json" in capsys.readouterr().err


def test_a_corrupt_shard_is_named(shards, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(shards, broken)
    shard = max(broken.rglob("*.array_record*"), key=lambda path: path.stat().st_size)
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    done = umit("inspect", broken, check=False)
    assert done.returncode in (1, 2)
    assert shard.name in one_line(done)


def test_a_checkpoint_of_another_model_is_refused(shards, stage1, tmp_path):
    workdir = tmp_path / "other"
    shutil.copytree(stage1, workdir)
    hf = json.loads((workdir / "model" / "config.json").read_text())
    text = hf.get("text_config", hf)
    text["num_hidden_layers"] += 1
    (workdir / "model" / "config.json").write_text(json.dumps(hf))
    done = umit("export", workdir, "--out", tmp_path / "export", check=False)
    assert done.returncode in (1, 2)
    assert "decoder/layers" in one_line(done)
    assert not (tmp_path / "export").exists()


def test_another_config_in_the_same_workdir_is_refused(shards, stage1):
    arguments = train_arguments("stage1", shards, stage1, 4)
    done = umit(*arguments, "--config.optimizer.weight_decay=0.123", check=False)
    assert done.returncode in (1, 2)
    assert "weight_decay" in one_line(done)


def test_a_broken_predictions_line_is_named(tmp_path, capsys):
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"id": "a"}\n')
    assert cli.main(["score", str(path), "--out", str(tmp_path / "out")]) == 2
    assert f"{path}:1" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_leaves_no_shards(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", small], check=False).returncode == 0
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    try:
        done = umit("prepare", "phantom", "--patients", 8, "--out", small / "shards", check=False)
        assert done.returncode == 1
        assert "No space left on device" in one_line(done)
        assert not (small / "shards" / "manifest.json").exists()
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_reader_that_closes_the_pipe_ends_it_quietly():
    command = f"{sys.executable} -m launch --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_help_of_every_command_names_its_flags(capsys):
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit) as ended:
            cli.main([command, "--help"])
        assert ended.value.code == 0
        assert "--json" in capsys.readouterr().out


def test_list_names_every_dataset_and_its_origin(capsys):
    assert cli.main(["prepare", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("sampler", "phantom", "dicom_folder", "nifti_folder"))
