"""One small run of the whole path, shared by the tests that look at its parts: each step is a real `umit` process."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
CONFIGS = ROOT / "configs"
SMALL = (
    "--config.data.rows=2",
    "--config.data.row_tokens=256",
    "--config.data.row_patches=512",
    "--config.model=tiny",
    "--config.vocab_size=640",
    "--config.checkpoint_every=2",
)


def umit(*args, check=True, **kwargs):
    """Runs `umit ARGS`; returns the finished process, with .summary from --json where it succeeded."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    env.pop("XLA_FLAGS", None)
    command = [sys.executable, "-m", "launch", *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, **kwargs)
    if check:
        assert done.returncode == 0, done.stderr
        if "--json" in args:
            done.summary = json.loads(done.stdout.splitlines()[-1])
    return done


def train_arguments(stage, shards, workdir, steps):
    sources = f"--config.data.sources=(('{shards}', 1.0),)"
    config = f"--config={CONFIGS / 'quickstart.py'}:{stage}"
    return ("train", config, "--workdir", workdir, sources, f"--config.steps={steps}", *SMALL, "--json")


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("path")


@pytest.fixture(scope="session")
def shards(work):
    out = work / "shards"
    done = umit("prepare", "phantom", "--patients", 16, "--seed", 3, "--out", out, "--json")
    assert done.summary["records"]["test"]["vqa"] > 0
    return out


@pytest.fixture(scope="session")
def stage1(work, shards):
    umit(*train_arguments("stage1", shards, work / "stage1", 4))
    return work / "stage1"


@pytest.fixture(scope="session")
def stage2(work, shards, stage1):
    arguments = train_arguments("stage2", shards, work / "stage2", 4)
    umit(*arguments, f"--config.init_from={stage1}", "--config.log_samples=True")
    return work / "stage2"


@pytest.fixture(scope="session")
def evaluation(work, shards, stage2):
    sources = f"--config.sources=('{shards}',)"
    umit("eval", f"--config={CONFIGS / 'eval.py'}", sources, "--checkpoint", stage2, "--out", work / "eval", "--json")
    return work / "eval"


@pytest.fixture(scope="session")
def exported(work, stage2):
    umit("export", stage2, "--out", work / "export", "--json")
    return work / "export"
