"""Many prompts of any size -> a handful of static shapes, each compiled once, and their answers in the given order.

Prompts are split by size into at most `shapes` groups, chosen to pad least and not to make many small batches; a
group's shape is its largest prompt.
Within a group, prompts with the same limit on new tokens go together, so that one long report does not keep a row of
one-word answers waiting. Rows of one batch are fewer where images are large: attention scores grow with the square.

On a mesh every process runs the same batches and builds the prompts of its own rows only, the next batch's while this
one is generated; every process gets all answers.
"""

import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from umit_jax.batch import Batch, empty_batch
from umit_jax.infer.generate import Generated, generate
from umit_jax.infer.progress import Progress
from umit_jax.infer.sampling import GREEDY, Sampling
from umit_jax.infer.score import Options, pack, slots_of
from umit_jax.model.config import ModelConfig
from umit_jax.parallel.mesh import from_own_rows, own_rows, row_shards

_ROUND = 16  # tokens and patches of a shape are multiples of this, so that close sizes count as one
_MOST_SCORES = 2**23  # rows * patches**2 of one batch: 32 MB for each head of float32 scores
_STEP = 16  # prompt tokens that cost as much as reading all weights for one more token of a batch (more on a TPU)


class Prompt(Protocol):
    """One prompt as numpy arrays, unpadded; see batch.Batch. vision_index_S counts the prompt's own merged patches."""

    tokens_S: np.ndarray
    positions_S3: np.ndarray
    patches_PC: np.ndarray
    patch_hw_P2: np.ndarray
    patch_segments_P: np.ndarray
    vision_index_S: np.ndarray


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Prompts (by number) that share one shape. new_tokens: the largest limit among them."""

    prompts: tuple[int, ...]
    rows: int
    tokens: int
    patches: int
    new_tokens: int

    def batches(self) -> list[tuple[int, ...]]:
        return [self.prompts[i : i + self.rows] for i in range(0, len(self.prompts), self.rows)]


class Answer(NamedTuple):
    """tokens: without the one that ended it. logps: their log-probabilities. options: that of each option, or None."""

    tokens: list[int]
    logps: list[float]
    options: list[float] | None


def answer_all(
    config: ModelConfig,
    params: Any,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int | Sequence[int],
    eos_ids: Sequence[int],
    options: Sequence[Sequence[Sequence[int]]] | None = None,
    keys_N2: np.ndarray | None = None,
    rows: int = 32,
    shapes: int = 4,
    compute_dtype: str = "float32",
    sampling: Sampling = GREEDY,
    ended: Callable[[list[int]], bool] | None = None,
    mesh: Mesh | None = None,
    known: Mapping[int, Answer] | None = None,
    report: Callable[[dict[int, Answer]], None] = lambda _: None,
) -> list[Answer]:
    """The answer to each prompt.

    prompts: read one by one as they are needed; where they have an attribute sizes_N2 (tokens, patches), none is read
    for its size. max_new_tokens: one limit for all, or one each. options: of each prompt, the answers whose likelihood
    is wanted, as token ids with their end token, or none. keys_N2: of random numbers (sampling.row_keys). rows: most
    prompts in a batch. shapes: most shapes, each of which costs two or three compilations. ended: see generate. mesh:
    over which params lie; a batch then has a multiple of its rows. known: answers by number that an earlier call
    reported (the first process's count): a batch of which all are known is not generated again, and the others are the
    same batches as they would be without. report: called with the answers of each batch as soon as they are there.
    """
    known = known or {}
    there = _agreed(np.array([i in known for i in range(len(prompts))], bool))
    answers = [known.get(i, Answer([], [], None)) for i in range(len(prompts))]
    limits_N = np.broadcast_to(np.asarray(max_new_tokens, np.int32), len(prompts))
    shards = 1 if mesh is None else row_shards(mesh)
    buckets = plan(sizes(prompts), limits_N, rows=rows, shapes=shapes, shards=shards)
    work = [(b, numbers) for b in buckets for numbers in b.batches() if not there[list(numbers)].all()]
    progress = Progress(len(prompts), sum(len(numbers) for _, numbers in work))
    with contextlib.closing(progress):
        for (bucket, numbers), batch in zip(work, _ahead(prompts, work, config.vision.patch_values, mesh), strict=True):
            found = generate(
                config,
                params,
                batch,
                max_new_tokens=bucket.new_tokens,
                eos_ids=eos_ids,
                limits_B=_rows(limits_N, numbers, bucket.rows),
                compute_dtype=compute_dtype,
                sampling=sampling,
                keys_B2=None if keys_N2 is None else _rows(keys_N2, numbers, bucket.rows),
                options=None if options is None else _options(options, bucket, numbers),
                ended=ended,
                mesh=mesh,
            )
            counts = [len(options[number]) if options is not None else 0 for number in numbers]
            new = {number: _answer(found, row, counts[row]) for row, number in enumerate(numbers)}
            for number, answer in new.items():
                answers[number] = answer
            report(new)
            progress.update(len(numbers), sum(len(answer.tokens) for answer in new.values()))
    return answers


def _agreed(known_N: np.ndarray) -> np.ndarray:
    """What the first process knows, which may be the only one that has the files."""
    return np.asarray(multihost_utils.broadcast_one_to_all(known_N)) if jax.process_count() > 1 else known_N


def _rows(values_N: np.ndarray, numbers: Sequence[int], rows: int) -> np.ndarray:
    """The values of a batch, and zeros for its padding."""
    out = np.zeros((rows, *values_N.shape[1:]), values_N.dtype)
    out[: len(numbers)] = values_N[list(numbers)]
    return out


def _options(options: Sequence[Sequence[Sequence[int]]], bucket: Bucket, numbers: Sequence[int]) -> Options | None:
    """The options of a batch in the one shape of its bucket; None where it has none."""
    if not any(options[number] for number in numbers):
        return None
    most = max(len(options[number]) for number in bucket.prompts)
    slots = max(slots_of(options[number]) for number in bucket.prompts)
    return pack([options[n] for n in numbers], bucket.rows, most, max(_ROUND, -(-slots // _ROUND) * _ROUND))


def _answer(found: Generated, row: int, options: int) -> Answer:
    length = int(found.lengths_B[row])
    scored = None if found.options_BO is None or not options else found.options_BO[row, :options].tolist()
    return Answer(found.tokens_BN[row, :length].tolist(), found.logps_BN[row, :length].tolist(), scored)


def _ahead(
    prompts: Sequence[Prompt], work: Sequence[tuple[Bucket, tuple[int, ...]]], values: int, mesh: Mesh | None
) -> Iterator[Batch]:
    """The batches in order, each built while the one before it is in use."""

    def build(bucket: Bucket, numbers: tuple[int, ...]) -> tuple[list[int], Batch]:
        own = list(range(bucket.rows)) if mesh is None else own_rows(mesh, bucket.rows)
        return own, pad([prompts[numbers[row]] if row < len(numbers) else None for row in own], bucket, values)

    with concurrent.futures.ThreadPoolExecutor(1) as builder:
        built = [builder.submit(build, *work[0])] if work else []
        for i, (bucket, _) in enumerate(work):
            own, batch = built.pop().result()
            if i + 1 < len(work):
                built.append(builder.submit(build, *work[i + 1]))
            yield batch if mesh is None else Batch(*(from_own_rows(mesh, bucket.rows, own, x) for x in batch))


def sizes(prompts: Sequence[Prompt]) -> np.ndarray:
    """(tokens, patches) of each prompt."""
    known = getattr(prompts, "sizes_N2", None)
    found = [[len(p.tokens_S), len(p.patches_PC)] for p in prompts] if known is None else known
    return np.array(found, np.int64).reshape(-1, 2)


def plan(sizes_N2: np.ndarray, limits: np.ndarray, *, rows: int, shapes: int, shards: int = 1) -> list[Bucket]:
    """Every prompt in exactly one bucket, at most `shapes` buckets. shards: the rows of a batch are a multiple
    of it, and attention scores are limited in each."""
    if rows < 1 or shapes < 1:
        raise ValueError(f"rows and shapes: expected at least 1, found {rows} and {shapes}")
    rounded_N2 = -(-sizes_N2 // _ROUND) * _ROUND
    kinds_U2, kind_N, counts_U = np.unique(rounded_N2[:, ::-1], axis=0, return_inverse=True, return_counts=True)
    kinds_U2 = kinds_U2[:, ::-1]  # sorted by patches, then tokens
    limits_U = np.zeros(len(kinds_U2), np.int64)
    np.maximum.at(limits_U, kind_N, limits)
    buckets = []
    for first, last in _split(kinds_U2, counts_U, limits_U, shapes, rows // shards):
        members = np.flatnonzero((kind_N >= first) & (kind_N < last)).tolist()
        tokens, patches = (int(n) for n in kinds_U2[first:last].max(0))
        most = _rows_at_once(tokens, patches, rows // shards) * shards
        members.sort(key=lambda i: (limits[i], sizes_N2[i, 0], i))
        batches = -(-len(members) // most)
        each = -(-len(members) // batches)
        new_tokens = max(1, int(limits[members].max()))
        buckets.append(Bucket(tuple(members), -(-each // shards) * shards, tokens, patches, new_tokens))
    return buckets


def _rows_at_once(tokens: int, patches: int, rows: int) -> int:
    """Of the `rows` of a device, those whose attention scores are not too many."""
    return max(1, min(rows, _MOST_SCORES // max(patches, tokens) ** 2))


def _split(
    kinds_U2: np.ndarray, counts_U: np.ndarray, limits_U: np.ndarray, shapes: int, rows: int
) -> list[tuple[int, int]]:
    """Sorted sizes cut into at most `shapes` runs (first, last) of least cost: prompts times the cost of the shape, and
    the steps of their batches, at `rows` a batch."""
    count = len(kinds_U2)
    best = np.full((shapes + 1, count + 1), np.inf)  # best[k, j]: the first j kinds in k runs
    best[:, 0] = 0
    cut = np.zeros((shapes + 1, count + 1), int)
    for last in range(1, count + 1):
        largest, number, limit = np.zeros(2, int), 0, 0
        for first in range(last - 1, -1, -1):
            largest, number = np.maximum(largest, kinds_U2[first]), number + counts_U[first]
            limit = max(limit, limits_U[first])
            batches = -(-number // _rows_at_once(largest[0], largest[1], rows))
            cost = number * _cost(*largest) + batches * limit * _STEP
            for k in range(1, shapes + 1):
                if best[k - 1, first] + cost < best[k, last]:
                    best[k, last], cut[k, last] = best[k - 1, first] + cost, first
    runs, last = [], count
    for k in range(shapes, 0, -1):
        if last:
            runs.append((int(cut[k, last]), last))
            last = int(cut[k, last])
    return runs[::-1]


def _cost(tokens: float, patches: float) -> float:
    """Work of one row: linear layers, and attention that catches up with them at about a thousand."""
    return tokens * (1 + tokens / 1024) + patches * (1 + patches / 1024)


def pad(prompts: Sequence[Prompt | None], bucket: Bucket, values: int) -> Batch:
    """One prompt a row, right-padded to the shape of the bucket; None is a row of padding. values: of a patch."""
    batch = empty_batch(len(prompts), bucket.tokens, bucket.patches, values)
    for row, prompt in enumerate(prompts):
        if prompt is None:
            continue
        s, p = len(prompt.tokens_S), len(prompt.patches_PC)
        batch.tokens_BS[row, :s] = prompt.tokens_S
        batch.positions_BS3[row, :s] = prompt.positions_S3
        batch.segments_BS[row, :s] = 1
        batch.vision_index_BS[row, :s] = prompt.vision_index_S
        if p:
            batch.patches_BPC[row, :p] = prompt.patches_PC
            batch.patch_hw_BP2[row, :p] = prompt.patch_hw_P2
            batch.patch_segments_BP[row, :p] = prompt.patch_segments_P
    return batch
