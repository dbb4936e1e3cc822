"""Which held-out records are asked about, and what a model answers: for `umit eval` and for evaluation during training.

Both read the same keys of their configs (configs/common.py, answers), so a number of one is a number of the other.
"""

import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from launch import prediction
from launch.cli import UsageError

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from data_pipelines.questions import Place, Questions
    from data_pipelines.tokenizer import Tokenizer
    from umit_jax.infer.buckets import Answer
    from umit_jax.model.config import ModelConfig


class Model(Protocol):
    """What answers: configuration, parameters, and the tokenizer of both."""

    @property
    def config(self) -> "ModelConfig": ...
    @property
    def params(self) -> Any: ...
    @property
    def tokenizer(self) -> "Tokenizer": ...


def places(config: Any, section: str = "") -> "list[Place]":
    """The records that the config asks for: of each shard directory at most `limit`, in order. section: what stands
    before a key's name in messages. Raises UsageError, and ShardError for a directory without the split."""
    from data_pipelines.shards import open_shards

    if not config.sources:
        raise UsageError(f"--config.{section}sources: no shard directory given, expected (directory, ...)")
    for task in config.tasks:
        if task not in config.max_new_tokens:
            raise UsageError(f"--config.{section}tasks: {task!r} has no limit in max_new_tokens")
    found: list[Place] = []
    for directory in map(pathlib.Path, config.sources):
        shards = open_shards(directory, config.split)
        records = ((i, shards[i]) for i in range(len(shards)))
        ids = {i: record.id for i, record in records if record.task in config.tasks}
        found += [(shards, i) for i in sampled(ids, config.limit)]
    if not found:
        where = f"--config.{section}split: no record of split {config.split!r}"
        raise UsageError(f"{where} for tasks {tuple(config.tasks)}")
    return found


def sampled(ids: dict[int, str], limit: int) -> list[int]:
    """At most `limit` of the positions, 0 for all: those with the smallest digests of their ids. Evenly spaced ones
    would be of one task where a set asks the same questions of patient after patient."""
    if not limit:
        return list(ids)
    return sorted(sorted(ids, key=lambda i: hashlib.sha256(ids[i].encode()).digest())[:limit])


def answer(
    questions: "Questions",
    config: Any,
    model: Model,
    mesh: "Mesh",
    *,
    known: "Mapping[int, Answer] | None" = None,
    report: "Callable[[dict[int, Answer]], None]" = lambda _: None,
) -> "list[Answer]":
    """The answers of a model whose parameters lie over the mesh; collective. known, report: see
    infer.buckets.answer_all."""
    from umit_jax.infer.buckets import answer_all
    from umit_jax.infer.sampling import Sampling, row_keys

    stop, records = tuple(config.stop), [asked.record for asked in questions.asked]

    def ended(tokens: list[int]) -> bool:
        text = model.tokenizer.decode(tokens)
        return prediction.before(text, stop) != text

    return answer_all(
        model.config,
        model.params,
        questions,
        max_new_tokens=[config.max_new_tokens[record.task] for record in records],
        eos_ids=model.tokenizer.eos_ids,
        options=questions.options() if config.option_scores else None,
        keys_N2=row_keys(config.seed, [record.id for record in records]),
        rows=config.rows,
        compute_dtype=config.compute_dtype,
        sampling=Sampling(**config.sampling),
        ended=ended if stop else None,
        mesh=mesh,
        known=known,
        report=report,
    )
