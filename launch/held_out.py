"""The held-out questions of a training run (config.evaluate): chosen and checked before it starts, asked every N steps.

Answers, parsing and metrics are those of `umit eval`. Every process asks and scores all of them, so that all have the
same numbers and nothing needs to be sent.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NamedTuple

import ml_collections

from launch import answers, prediction
from launch.cli import UsageError, nearest

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from data_pipelines.example import Processing
    from data_pipelines.tokenizer import Tokenizer
    from umit_jax.eval.named import Named
    from umit_jax.infer.buckets import Answer
    from umit_jax.model.config import ModelConfig


class _Model(NamedTuple):
    config: "ModelConfig"
    params: Any
    tokenizer: "Tokenizer"


class HeldOut:
    """See umit_jax/train/held_out.py. Raises UsageError naming the key, ShardError naming the shard directory."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        training: Collection[pathlib.Path],
        tokenizer: "Tokenizer",
        processing: "Processing",
        mesh: "Mesh",
    ):
        """config: of the run. training: the shard directories it learns from, data.split of them."""
        from data_pipelines.questions import Questions
        from umit_jax.eval.named import names

        self.every, self.best = config.evaluate.every, config.evaluate.best
        own = config.evaluate.to_dict()
        own |= {"sources": own["sources"] or tuple(map(str, training))}
        own |= {"seed": config.seed, "compute_dtype": config.compute_dtype}
        self._config, self._tokenizer, self._mesh = ml_collections.ConfigDict(own), tokenizer, mesh
        _check_apart(self._config, config.data.split, training)
        self._questions = Questions(answers.places(self._config, "evaluate."), tokenizer, processing)
        asked = [prediction.identity(asked.record) for asked in self._questions.asked]
        known = names([{**about, "truth": about["target"]} for about in asked])
        if self.best and self.best not in known:
            near = nearest(self.best, known)
            raise UsageError(f"--config.evaluate.best: unknown metric {self.best!r}{near}; known: {', '.join(known)}")
        numbers = {key: value for key, value in own.items() if key not in ("every", "best", "rows")}
        numbers["ids"] = [about["id"] for about in asked]
        self.settings = hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()[:16]

    def __call__(self, config: "ModelConfig", params: Any, alive: Callable[[], None]) -> "dict[str, Named]":
        from umit_jax.eval.named import named

        def report(_: "dict[int, Answer]") -> None:
            alive()

        model = _Model(config, params, self._tokenizer)
        found = answers.answer(self._questions, self._config, model, self._mesh, report=report)
        stop = tuple(self._config.stop)
        pairs = zip(self._questions.asked, found, strict=True)
        return named([prediction.line(asked, answer, self._tokenizer, None, stop) for asked, answer in pairs])


def _check_apart(config: Any, training_split: str, training: Collection[pathlib.Path]) -> None:
    """Raises UsageError where a patient of the questions may be one that the run learns from."""
    from data_pipelines.paths import as_path
    from data_pipelines.shards import read_manifest
    from umit_jax.train.workdir import absolute

    trained_on = set(map(absolute, training))
    for source in config.sources:
        if absolute(as_path(source)) not in trained_on:
            continue
        if config.split == training_split:
            raise UsageError(f"--config.evaluate.split: {config.split!r} of {source} is what the run trains on")
        for leak in read_manifest(source)["leaks"]:
            if {config.split, training_split} <= leak["records"].keys():
                both = f"{leak['kind']} in {training_split!r} and {config.split!r}"
                raise UsageError(f"--config.evaluate.split: {source}: manifest.json lists the same {both}")
