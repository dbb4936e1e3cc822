"""gs:// for shards, checkpoints and logs; s3:// refused. The emulator's tests are skipped where it is not installed."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import urllib.request

import pytest

from data_pipelines.paths import PathError, as_path, is_remote
from launch import cli
from tests.launch.conftest import CONFIGS, ROOT, train_arguments, umit
from tests.launch.gcs import BUCKET, emulator

S3 = "s3://b/x: Orbax cannot write checkpoints to S3, nor ArrayRecord read it: use gs:// or a mount"


def test_s3_is_refused_with_the_reason_in_one_line(tmp_path, capsys):
    config = f"--config={CONFIGS / 'quickstart.py'}:stage1"
    for arguments in (
        ["train", config, "--workdir", "s3://b/x"],
        ["train", config, "--workdir", str(tmp_path), "--config.data.sources=(('s3://b/x', 1.0),)"],
        ["eval", f"--config={CONFIGS / 'eval.py'}", "--checkpoint", "s3://b/x", "--out", str(tmp_path)],
    ):
        assert cli.main(arguments) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.endswith(S3)
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_by_renaming_stays_on_this_machine(capsys):
    assert cli.main(["prepare", "phantom", "--out", "gs://b/x"]) == 2
    assert "--out: gs://b/x: expected a directory on this machine" in capsys.readouterr().err


def test_a_path_stays_what_it_is(monkeypatch):
    assert as_path("a/b") == as_path(as_path("a/b"))
    assert not is_remote(as_path("a/b"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PathError, match=r"gs://b/x: gs:// needs gcsfs: pip install 'umit_jax\[gcs\]'"):
        as_path("gs://b/x")
    with pytest.raises(PathError, match=r"hdfs://b/x: expected a path on this machine or gs://BUCKET/"):
        as_path("hdfs://b/x")


def weights(exported: pathlib.Path) -> bytes:
    return (exported / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_run_from_and_to_a_bucket_is_the_run_on_this_machine(shards, tmp_path, monkeypatch):
    with emulator() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        bucket = as_path(f"gs://{BUCKET}")
        for file in shards.iterdir():
            (bucket / "shards" / file.name).write_bytes(file.read_bytes())
        here = umit(*train_arguments("stage1", shards, tmp_path / "run", 4)).summary
        workdir = f"gs://{BUCKET}/run"
        first = umit(*train_arguments("stage1", bucket / "shards", workdir, 2)).summary
        assert (first["step"], first["checkpoint"]) == (2, f"{workdir}/checkpoints/2")
        there = umit(*train_arguments("stage1", bucket / "shards", workdir, 4)).summary
        assert (there["resumed_from"], there["compilations"]) == (2, 1)
        assert there["loss"] == here["loss"]
        logs = [as_path(workdir) / "metrics.jsonl", tmp_path / "run" / "metrics.jsonl"]
        losses = [[json.loads(line)["loss"] for line in log.read_text().splitlines()] for log in logs]
        assert losses[0] == losses[1]
        assert json.loads((as_path(workdir) / "summary.json").read_text())["step"] == 4
        assert any("tfevents" in path.name for path in (as_path(workdir) / "tensorboard").iterdir())
        inspected = umit("inspect", workdir, "--json").summary
        assert (inspected["step"], inspected["data_position"]) == (4, 4)
        for run, out in ((workdir, "there"), (tmp_path / "run", "here")):
            umit("export", run, "--out", tmp_path / out)
        assert weights(tmp_path / "there") == weights(tmp_path / "here")
        lora = (f"--config.init_from={workdir}", "--config.lora.rank=4")
        umit(*train_arguments("stage2", shards, f"gs://{BUCKET}/lora", 2), *lora)
        for flags, out in (((), "by name"), (("--base", tmp_path / "run"), "by flag")):
            umit("export", f"gs://{BUCKET}/lora", "--out", tmp_path / out, *flags)
        assert weights(tmp_path / "by name") == weights(tmp_path / "by flag") != weights(tmp_path / "here")
        assert umit("inspect", f"gs://{BUCKET}/lora", "--json").summary["base"]["found"]
        again = umit(*train_arguments("stage2", shards, tmp_path / "two", 1), f"--config.init_from={workdir}").summary
        assert again["step"] == 1


@pytest.mark.slow
def test_a_bucket_that_is_gone_is_tried_again_and_then_named(shards, monkeypatch):
    with emulator() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        arguments = train_arguments("stage1", shards, "gs://no-such-bucket/run", 2)
        done = umit(*arguments, "--config.save_patience=1", check=False)
        assert done.returncode in (1, 2)
        assert "no-such-bucket" in done.stderr.strip().splitlines()[-1]
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_run_whose_bucket_vanishes_tries_again_says_so_and_ends(shards, tmp_path):
    with emulator() as environment, (tmp_path / "stderr").open("w") as stderr:
        arguments = train_arguments("stage1", shards, f"gs://{BUCKET}/run", 10_000)
        command = [sys.executable, "-m", "launch", *map(str, arguments), "--config.save_patience=2"]
        variables = {**os.environ, **environment, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            wait_for_a_checkpoint(
                f"{environment['STORAGE_EMULATOR_HOST']}/storage/v1/b/{BUCKET}/o?prefix=run/checkpoints/"
            )
            environment.kill()
            assert process.wait(timeout=400) == 1
        finally:
            process.kill()
    said = (tmp_path / "stderr").read_text()
    assert "trying again in 1 s" in said
    assert re.search(rf"gs://{BUCKET}/run/.*not (written|saved)", said.strip().splitlines()[-1])
    assert "Traceback" not in said


def wait_for_a_checkpoint(listing: str, seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while True:
        with urllib.request.urlopen(listing) as found:
            if b"commit_success.txt" in found.read():
                return
        assert time.monotonic() < end
        time.sleep(0.2)
