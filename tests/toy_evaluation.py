"""A random tiny model and a few questions of every kind, and `umit eval` on them as a process of its own."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax

from configs.sizes import model_config
from data_pipelines.example import Processing
from data_pipelines.prompts.answers import answer_text, options_text
from data_pipelines.record import MEDIA_TOKEN, Record, Turn
from data_pipelines.shards import ShardWriter
from data_pipelines.tokenizer import train_sentencepiece
from tests.data.toy_records import image, record
from umit_jax.model.param import init_params
from umit_jax.targets import Frame, boxes_target, options_target
from umit_jax.train.checkpoint import save_params

ROOT = pathlib.Path(__file__).parents[1]
RECORDS, BATCH = 9, 2


def question(number: int, split: str) -> Record:
    """Yes or no with options, a free question, boxes, in turn, about each image; images of three sizes."""
    shown = number // 3
    media = (image(28 * (1 + shown % 3), 56, seed=shown),)
    words = f"Is the liver seen in number {number}?"
    asked = record(number, split=split, media=media, question=words)
    size = tuple(map(float, media[0].size))
    others = {
        0: ("vqa", options_target(["yes", "no"], number % 2, 1)),
        2: ("detection", boxes_target(Frame("raw", size), [("liver", [0, 0, 20, 20])])),
    }
    if number % 3 == 1:
        return asked
    task, target = others[number % 3]
    answer = Turn("assistant", answer_text(target, task=task, language="en"))
    listed = f"\n{options_text(target['options'], target['first'], 'en')}" if task == "vqa" else ""
    turns = (Turn("user", f"{MEDIA_TOKEN}{words}{listed}"), answer)
    return dataclasses.replace(asked, task=task, target=target, turns=turns)


def make_work(work: pathlib.Path) -> pathlib.Path:
    """A workdir with a random model, and shards with a test split."""
    texts = [f"Is the liver seen in number {i}? yes no" for i in range(40)]
    tokenizer = train_sentencepiece(texts, work / "run" / "model", 320)
    config = model_config("tiny", tokenizer)
    (work / "run" / "model" / "config.json").write_text(json.dumps(config.to_hf()))
    processing = Processing(min_pixels=784, max_pixels=4 * 784)
    (work / "run" / "model" / "preprocess.json").write_text(json.dumps(processing.to_json()))
    params = init_params(config, jax.random.key(0))
    save_params(work / "run", jax.tree.map(lambda x: 4 * x if x.ndim > 2 else x, params))
    with ShardWriter(work / "shards", "toy") as writer:
        for i in range(2 * RECORDS):
            writer.add(question(i, "test" if i < RECORDS else "train"))
    return work


def arguments(work, out, **settings) -> list[str]:
    given = ["eval", "--config", ROOT / "configs" / "eval.py", "--checkpoint", work / "run", "--out", out, "--json"]
    flags = settings.pop("flags", [])
    settings = {
        "sources": (str(work / "shards"),),
        "rows": BATCH,
        "max_new_tokens.vqa": 8,
        "max_new_tokens.detection": 8,
    } | settings
    return [*map(str, given), *flags, *(f"--config.{key}={value!r}" for key, value in settings.items())]


def one_device() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}


def evaluate(work, out, **settings) -> dict:
    call = [sys.executable, "-m", "launch", *arguments(work, out, **settings)]
    done = subprocess.run(call, cwd=ROOT, env=one_device(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
