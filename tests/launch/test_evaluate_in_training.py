"""`umit train` with config.evaluate: the numbers of `umit eval` on the same questions, from the parameters in use."""

import json

import pytest

from launch import cli
from tests.toy_evaluation import ROOT, arguments, make_work
from umit_jax.eval.named import named
from umit_jax.eval.predictions import read_predictions

BEST = "vqa/token_f1"
ASKED = {"limit": 4, "rows": 8, "tasks": ("vqa",), "option_scores": True, "max_new_tokens.vqa": 8}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return make_work(tmp_path_factory.mktemp("work"))


def train(work, out, **settings) -> list[str]:
    given = ["train", f"--config={ROOT / 'configs' / 'quickstart.py'}:stage2", "--workdir", out, "--json"]
    settings = {
        "data.sources": ((str(work / "shards"), 1.0),),
        "data.row_tokens": 128,
        "data.row_patches": 64,
        "steps": 2,
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


@pytest.fixture(scope="module")
def trained(work):
    """The workdir of two steps on eight devices, each evaluated."""
    assert cli.main(train(work, work / "trained")) == 0
    return work / "trained"


def test_numbers_are_those_of_umit_eval_on_the_same_questions(work, trained, tmp_path, capsys):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    for line in lines:
        out = tmp_path / str(line["step"])
        call = arguments(work, out, **ASKED)
        call[call.index("--checkpoint") + 1] = str(trained / "checkpoints" / str(line["step"]))
        assert cli.main(call) == 0
        scores = named(read_predictions(out / "predictions.jsonl"))
        assert {name: score.value for name, score in scores.items()} == line["evaluation"]
    assert summary_of(capsys)["n"] == ASKED["limit"]
    assert len({line["evaluation"]["vqa/ece"] for line in lines}) == 2


def test_generation_is_compiled_by_the_first_evaluation_alone(trained):
    summary = json.loads((trained / "summary.json").read_text())
    assert 0 < summary["evaluation_compilations"] <= 3 * 2  # prefill, decode and options of two shapes
    assert summary["compilations"] == 1


def test_the_best_is_read_by_the_other_commands(trained, capsys):
    assert cli.main(["inspect", str(trained / "best"), "--json"]) == 0
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
