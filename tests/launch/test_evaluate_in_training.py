"""`umit train` with config.evaluate: the numbers of `umit eval` on the same questions, from the parameters in use."""

import json
import os
import subprocess
import sys

import pytest

from launch import cli
from tests.toy_evaluation import ROOT, arguments
from umit_jax.eval.named import named
from umit_jax.eval.predictions import read_predictions

BEST = "vqa/token_f1"
ASKED = {"limit": 4, "rows": 8, "tasks": ("vqa",), "option_scores": True, "max_new_tokens.vqa": 8}


# One process for all of it, so that what it compiles serves twice; XLA's level 0 compiles in half the time.
PROGRAM = """
import json, pathlib, sys
from launch import cli
from tests.toy_evaluation import make_work
make_work(pathlib.Path(sys.argv[1]))
sys.exit(max(cli.main(call) for call in json.loads(sys.argv[2])))
"""
FLAGS = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"


def train(work, out, **settings) -> list[str]:
    given = ["train", f"--config={ROOT / 'configs' / 'quickstart.py'}:stage2", "--workdir", out, "--json"]
    settings = {
        "data.sources": ((str(work / "shards"), 1.0),),
        "data.row_tokens": 128,
        "data.row_patches": 64,
        "steps": 2,
        "remat": "none",
        "model": "tiny",
        "init_from": str(work / "run"),
        **{f"evaluate.{key}": value for key, value in ASKED.items()},
        "evaluate.every": 1,
        "evaluate.split": "test",
        "evaluate.best": BEST,
        "checkpoint_every": 1,
        "keep": 4,
    } | settings
    return [*map(str, given), *(f"--config.{key}={value}" for key, value in settings.items())]


def summary_of(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def ask(work, step) -> list[str]:
    """`umit eval` of a step of the run."""
    call = arguments(work, work / f"eval{step}", **ASKED)
    call[call.index("--checkpoint") + 1] = str(work / "trained" / "checkpoints" / str(step))
    return call


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Shards, trained/ (two steps on two devices, each evaluated), eval1/ and eval2/ (of the two checkpoints)."""
    work = tmp_path_factory.mktemp("work")
    calls = [train(work, work / "trained"), ask(work, 1), ask(work, 2)]
    command = [sys.executable, "-c", PROGRAM, str(work), json.dumps(calls)]
    environment = {**os.environ, "XLA_FLAGS": FLAGS}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return work


def test_numbers_are_those_of_umit_eval_on_the_same_questions(work):
    lines = [json.loads(line) for line in (work / "trained" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    for line in lines:
        predictions = read_predictions(work / f"eval{line['step']}" / "predictions.jsonl")
        assert len(predictions) == ASKED["limit"]
        assert {name: score.value for name, score in named(predictions).items()} == line["evaluation"]
    assert lines[0]["evaluation"]["vqa/ece"] != lines[1]["evaluation"]["vqa/ece"]


@pytest.mark.slow
def test_two_processes_have_the_numbers_of_one_and_keep_the_same_best(work):
    command, *flags = train(work, work / "together")
    call = [sys.executable, "-m", "launch", "launch", "local", "--processes", "2", "--devices-per-process", "1", *flags]
    environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=500)
    assert (command, done.returncode) == ("train", 0), done.stderr
    found, alone = (json.loads((work / name / "summary.json").read_text()) for name in ("together", "trained"))
    assert found["evaluation"] == alone["evaluation"]
    assert found["evaluation_compilations"] == alone["evaluation_compilations"]


def test_generation_is_compiled_by_the_first_evaluation_alone(work):
    summary = json.loads((work / "trained" / "summary.json").read_text())
    assert 0 < summary["evaluation_compilations"] <= 4 * 2  # prefix, rest, decode and options of two shapes
    assert summary["compilations"] == 1


def test_the_best_is_read_by_the_other_commands(work, capsys):
    assert cli.main(["inspect", str(work / "trained" / "best"), "--json"]) == 0
    found = summary_of(capsys)
    best = found["evaluation"]["best"]
    assert (best["metric"], best["step"], best["direction"]) == (BEST, found["step"], "higher")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluate.best": "vqa/acuracy"}, "--config.evaluate.best: unknown metric 'vqa/acuracy'"),
        ({"evaluate.split": "train"}, "--config.evaluate.split: 'train' of"),
        ({"evaluate.split": "validation"}, "split: expected one of train, test, found 'validation'"),
        ({"evaluate.tasks": ("report",)}, "--config.evaluate.split: no record of split 'test' for tasks ('report',)"),
        ({"evaluate.tasks": ("rumour",)}, "--config.evaluate.tasks: 'rumour' has no limit in max_new_tokens"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line_before_training(work, tmp_path, capsys, change, message):
    assert cli.main(train(work, tmp_path / "run", **change)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "umit" in line]
    assert message in line
    if "evaluate.best" in change:
        assert "known: vqa/closed_accuracy, vqa/unparsed, vqa/auc" in line
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
