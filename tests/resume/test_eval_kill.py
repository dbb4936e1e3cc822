"""`umit eval` that is killed goes on where it stopped, and its predictions are those of one that was not."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import pytest

from configs.sizes import model_config
from data_pipelines.example import Processing
from data_pipelines.shards import ShardWriter
from data_pipelines.tokenizer import train_sentencepiece
from tests.data.toy_records import image, record
from umit_jax.eval.partial import PartialAnswers
from umit_jax.infer.buckets import Answer
from umit_jax.model.param import init_params
from umit_jax.train.checkpoint import save_params

ROOT = pathlib.Path(__file__).parents[2]
RECORDS, BATCH = 9, 2
A, B = Answer([1, 2], [-0.5, -0.125], [-1.0, -2.5]), Answer([], [], None)

# `umit eval` whose fourth batch never comes.
HANGING = """
import sys, time
from launch import cli
from umit_jax.infer import buckets
real, calls = buckets.generate, []
def generate(*args, **kwargs):
    calls.append(1)
    if len(calls) == 4:
        time.sleep(600)
    return real(*args, **kwargs)
buckets.generate = generate
cli.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A workdir with a random model, and shards with a test split."""
    work = tmp_path_factory.mktemp("work")
    texts = [f"Is the liver seen in number {i}? yes no" for i in range(40)]
    tokenizer = train_sentencepiece(texts, work / "run" / "model", 320)
    config = model_config("tiny", tokenizer)
    (work / "run" / "model" / "config.json").write_text(json.dumps(config.to_hf()))
    processing = Processing(min_pixels=784, max_pixels=4 * 784)
    (work / "run" / "model" / "preprocess.json").write_text(json.dumps(processing.to_json()))
    save_params(work / "run", init_params(config, jax.random.key(0)))
    with ShardWriter(work / "shards", "toy") as writer:
        for i in range(2 * RECORDS):
            split = "test" if i < RECORDS else "train"
            media = (image(28 * (1 + i % 3), 56, seed=i),)
            writer.add(record(i, split=split, media=media, question=f"Is the liver seen in number {i}?"))
    return work


def command(work, out, script=None, **settings) -> list[str]:
    how = ["-m", "launch"] if script is None else ["-c", script]
    arguments = ["eval", "--config", ROOT / "configs" / "eval.py", "--checkpoint", work / "run", "--out", out, "--json"]
    settings = {"sources": (str(work / "shards"),), "rows": BATCH, "max_new_tokens.vqa": 8} | settings
    arguments += [f"--config.{key}={value!r}" for key, value in settings.items()]
    return [sys.executable, *how, *map(str, arguments)]


def one_device() -> dict[str, str]:
    """On eight, two batches would be all."""
    return {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}


def evaluate(work, out, **settings) -> dict:
    call = command(work, out, **settings)
    done = subprocess.run(call, cwd=ROOT, env=one_device(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def lines(path: pathlib.Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def kill_after_three_batches(work, out) -> None:
    call, pipe = command(work, out, HANGING), subprocess.PIPE
    process = subprocess.Popen(call, cwd=ROOT, env=one_device(), stdout=pipe, stderr=pipe)
    deadline = time.monotonic() + 300
    while lines(out / ".answers.partial.jsonl") < 1 + 3 * BATCH - 1:  # one of the batches is not full
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)  # it hangs in the fourth batch by now
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()


@pytest.fixture(scope="module")
def whole(work):
    """The directory of an evaluation that nothing interrupted."""
    summary = evaluate(work, work / "whole")
    assert (summary["n"], summary["taken_over"]) == (RECORDS, 0)
    return work / "whole"


def test_a_killed_evaluation_goes_on_and_its_predictions_are_the_same_bytes(work, whole, tmp_path):
    kill_after_three_batches(work, tmp_path)
    assert not (tmp_path / "predictions.jsonl").exists()
    with open(tmp_path / ".answers.partial.jsonl", "ab") as file:
        file.write(b'{"index": 8, "id": "toy/8", "tok')  # as a kill in the middle of a write would leave it
    resumed = evaluate(work, tmp_path)
    assert resumed["n"] == RECORDS
    assert 3 * BATCH - 1 <= resumed["taken_over"] <= 3 * BATCH
    for name in ("predictions.jsonl", "scores.json"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in whole.iterdir())


def test_answers_of_other_weights_or_settings_are_not_taken_over(work, whole, tmp_path):
    ids = [f"toy/{i}" for i in range(RECORDS)]
    PartialAnswers(tmp_path / ".answers.partial.jsonl", "0" * 64, ids).add(dict.fromkeys(range(RECORDS), A))
    assert evaluate(work, tmp_path)["taken_over"] == 0
    assert (tmp_path / "predictions.jsonl").read_bytes() == (whole / "predictions.jsonl").read_bytes()


def test_only_whole_lines_of_the_same_key_and_records_are_known(tmp_path):
    path, ids = tmp_path / "partial.jsonl", ["a", "b", "c"]
    PartialAnswers(path, "key", ids).add({0: A, 2: B})
    assert PartialAnswers(path, "key", ids).known == {0: A, 2: B}
    assert PartialAnswers(path, "key", ["a", "b", "x"]).known == {0: A}
    cut = path.read_bytes()[:-3]
    path.write_bytes(cut)
    torn = PartialAnswers(path, "key", ids)
    assert torn.known == {0: A}
    torn.add({1: B})
    assert PartialAnswers(path, "key", ids).known == {0: A, 1: B}
    assert PartialAnswers(path, "another key", ids).known == {}
    assert PartialAnswers(path, "key", ids).known == {}
    path.write_bytes(os.urandom(64))
    assert PartialAnswers(path, "key", ids).known == {}
