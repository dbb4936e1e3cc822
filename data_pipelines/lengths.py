"""How many tokens and patches each sample of a shard set takes, from texts and recorded image sizes alone.

Counting reads every record once and decodes no pixel; the result is cached under a hash of the shards, the tokenizer
and the processing. Row limits come after: samples too large for a row are few, and only they are looked at again.

| policy | a sample too large for a row                                                          |
| shrink | its images are shrunk until it fits; dropped if that cannot be, e.g. for its text     |
| drop   | left out                                                                              |
| error  | refused: LengthError names the first one                                              |

Whatever is shrunk or left out is listed by id, and what is left out is counted by reason.
"""

import collections
import dataclasses
import hashlib
import json
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from data_pipelines.example import ExampleError, Limits, outline
from data_pipelines.image import Processing
from data_pipelines.paths import as_path, write_aside
from data_pipelines.shards import RecordSource
from data_pipelines.tokenizer import Tokenizer
from umit_jax.batch import TASKS

logger = logging.getLogger(__name__)
_VERSION = 2  # of the counting: a change of outline() makes old caches wrong
POLICIES = ("shrink", "drop", "error")


class LengthError(ValueError):
    """A sample that does not fit under policy "error", or nothing left to train on."""


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Per record N: text tokens, vision tokens when nothing is shrunk, and task; -1 tokens = cannot be an example, for
    the reason in `unusable` ({index, id, reason})."""

    text_N: np.ndarray
    vision_N: np.ndarray
    task_N: np.ndarray
    unusable: tuple[dict[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Per usable sample M: its record's index in rising order, and the tokens and patches it takes in a row; task_M is
    its position in TASKS."""

    index_M: np.ndarray
    tokens_M: np.ndarray
    patches_M: np.ndarray
    task_M: np.ndarray
    shrunk: tuple[str, ...] = ()
    dropped: tuple[dict[str, str], ...] = ()  # {id, reason}


def measure(
    source: RecordSource, tokenizer: Tokenizer, processing: Processing, cache_dir: str | Path | None = None
) -> Lengths:
    """Counts every record of a split, or reads the count from cache_dir."""
    path = None if cache_dir is None else as_path(cache_dir) / f"lengths-{_key(source, tokenizer, processing)}.npz"
    if path is not None and path.is_file():
        with path.open("rb") as file, np.load(file) as saved:
            return Lengths(saved["text"], saved["vision"], saved["task"], tuple(json.loads(str(saved["unusable"]))))
    lengths = _count(source, tokenizer, processing)
    if path is not None:
        _save(path, lengths)
    return lengths


def _count(source: RecordSource, tokenizer: Tokenizer, processing: Processing) -> Lengths:
    text, vision, task = (np.full(len(source), -1, dtype) for dtype in (np.int32, np.int32, np.int8))
    unusable = []
    for i in tqdm(range(len(source)), desc=f"lengths of {source.name}", disable=None):
        record = source[i]
        task[i] = TASKS.index(record.task)
        try:
            # Without a bound on the sample: total_pixels is part of the processing, the row is not.
            plan = outline(record, tokenizer, processing)
        except ExampleError as error:
            unusable.append({"index": i, "id": record.id, "reason": error.reason})
            continue
        text[i], vision[i] = plan.text_tokens, plan.vision_tokens
    return Lengths(text, vision, task, tuple(unusable))


def fit(
    source: RecordSource,
    lengths: Lengths,
    tokenizer: Tokenizer,
    processing: Processing,
    limits: Limits,
    policy: Literal["shrink", "drop", "error"] = "shrink",
    tasks: Collection[str] = (),
) -> Sizes:
    """The samples of the wanted tasks (all when empty) as they go into rows. Raises LengthError."""
    if policy not in POLICIES:
        raise LengthError(f"oversize: expected {' | '.join(POLICIES)}, found {policy!r}")
    if unknown := sorted(set(tasks) - set(TASKS)):
        raise LengthError(f"tasks: expected some of {', '.join(TASKS)}, found {unknown[0]!r}")
    wanted = np.isin(lengths.task_N, [TASKS.index(task) for task in tasks]) if tasks else lengths.task_N >= 0
    text, vision = lengths.text_N.copy(), lengths.vision_N.copy()
    usable = wanted & (lengths.text_N >= 0)
    room = np.minimum(limits.tokens - lengths.text_N, limits.patches // processing.merge**2)
    shrunk: list[str] = []
    dropped = [{"id": u["id"], "reason": u["reason"]} for u in lengths.unusable if wanted[u["index"]]]
    for i in np.flatnonzero(usable & (vision > room)):
        record = source[int(i)]
        patches = vision[i] * processing.merge**2
        size = f"{lengths.text_N[i] + vision[i]} tokens and {patches} patches"
        if policy == "error":
            row = f"{limits.tokens} and {limits.patches}"
            raise LengthError(f"{source.directory}: record {record.id!r} takes {size}, a row holds {row}")
        try:
            if policy == "drop":
                raise ExampleError(record, "larger than a row", size)
            plan = outline(record, tokenizer, processing, limits)
            # The text as well: boxes in pixels have fewer digits in a smaller image.
            text[i], vision[i] = plan.text_tokens, plan.vision_tokens
            shrunk.append(record.id)
        except ExampleError as error:
            usable[i] = False
            dropped.append({"id": record.id, "reason": error.reason})
    _log(source, shrunk, dropped)
    index_M = np.flatnonzero(usable)
    return Sizes(
        index_M=index_M,
        tokens_M=(text + vision)[index_M],
        patches_M=vision[index_M] * processing.merge**2,
        task_M=lengths.task_N[index_M],
        shrunk=tuple(shrunk),
        dropped=tuple(dropped),
    )


def _log(source: RecordSource, shrunk: Sequence[str], dropped: Sequence[dict[str, str]]) -> None:
    where = f"{source.directory} ({source.split})"
    if shrunk:
        logger.warning("%s: images of %d samples shrunk to fit a row", where, len(shrunk))
    for reason, count in collections.Counter(d["reason"] for d in dropped).most_common():
        logger.warning("%s: %d samples left out: %s", where, count, reason)


def _key(source: RecordSource, tokenizer: Tokenizer, processing: Processing) -> str:
    parts = [_VERSION, [shard["sha256"] for shard in source.shards], tokenizer.fingerprint, processing.to_json()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _save(path: Path, lengths: Lengths) -> None:
    unusable = np.array(json.dumps(lengths.unusable))
    text, vision, task = lengths.text_N, lengths.vision_N, lengths.task_N
    write_aside(path, lambda file: np.savez(file, text=text, vision=vision, task=task, unusable=unusable))
