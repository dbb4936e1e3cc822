"""Many prompts of any size -> a handful of static shapes, each compiled once, and their answers in the given order.

Prompts are split by size into at most `shapes` groups, chosen to pad least; a group's shape is its largest prompt.
Within a group, prompts with the same limit on new tokens go together, so that one long report does not keep a row of
one-word answers waiting. Rows of one batch are fewer where images are large: attention scores grow with the square.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from umit_jax.batch import Batch, empty_batch
from umit_jax.infer.generate import generate
from umit_jax.model.config import ModelConfig

_ROUND = 16  # tokens and patches of a shape are multiples of this, so that close sizes count as one
_MOST_SCORES = 2**23  # rows * patches**2 of one batch: 32 MB for each head of float32 scores


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


def answer_all(
    config: ModelConfig,
    params: Any,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int | Sequence[int],
    eos_ids: Sequence[int],
    rows: int = 32,
    shapes: int = 4,
    compute_dtype: str = "float32",
    attention: str = "blockwise",
    known: Mapping[int, list[int]] | None = None,
    report: Callable[[dict[int, list[int]]], None] = lambda _: None,
) -> list[list[int]]:
    """The greedy answer to each prompt as token ids, without the token that ended it.

    max_new_tokens: one limit for all prompts, or one each. rows: most prompts in a batch. shapes: most shapes, each
    of which costs two compilations. known: answers by number that an earlier call reported: a batch of which all are
    known is not generated again, and the others are the same batches as they would be without. report: called with the
    answers of each batch as soon as they are there.
    """
    known = known or {}
    limits = np.broadcast_to(np.asarray(max_new_tokens, np.int32), len(prompts))
    answers: list[list[int]] = [[] for _ in prompts]
    with tqdm(total=len(prompts), desc="generate", unit="answer", disable=None) as progress:
        for bucket in plan(prompts, limits, rows=rows, shapes=shapes):
            for numbers in bucket.batches():
                if known.keys() >= set(numbers):
                    for number in numbers:
                        answers[number] = known[number]
                    progress.update(len(numbers))
                    continue
                limits_B = np.zeros(bucket.rows, np.int32)
                limits_B[: len(numbers)] = limits[list(numbers)]
                tokens_BN, lengths_B = generate(
                    config,
                    params,
                    pad([prompts[i] for i in numbers], bucket),
                    max_new_tokens=bucket.new_tokens,
                    eos_ids=eos_ids,
                    limits_B=limits_B,
                    compute_dtype=compute_dtype,
                    attention=attention,
                )
                for row, number in enumerate(numbers):
                    answers[number] = tokens_BN[row, : lengths_B[row]].tolist()
                report({number: answers[number] for number in numbers})
                progress.update(len(numbers))
    return answers


def plan(prompts: Sequence[Prompt], limits: np.ndarray, *, rows: int, shapes: int) -> list[Bucket]:
    """Every prompt in exactly one bucket, at most `shapes` buckets."""
    if rows < 1 or shapes < 1:
        raise ValueError(f"rows and shapes: expected at least 1, found {rows} and {shapes}")
    sizes_N2 = np.array([[len(p.tokens_S), len(p.patches_PC)] for p in prompts], np.int64).reshape(-1, 2)
    rounded_N2 = -(-sizes_N2 // _ROUND) * _ROUND
    kinds_U2, kind_N, counts_U = np.unique(rounded_N2[:, ::-1], axis=0, return_inverse=True, return_counts=True)
    kinds_U2 = kinds_U2[:, ::-1]  # sorted by patches, then tokens
    buckets = []
    for first, last in _split(kinds_U2, counts_U, shapes):
        members = [i for i in range(len(prompts)) if first <= kind_N[i] < last]
        tokens, patches = (int(n) for n in kinds_U2[first:last].max(0))
        most = max(1, min(rows, _MOST_SCORES // max(patches, tokens) ** 2))
        members.sort(key=lambda i: (limits[i], len(prompts[i].tokens_S), i))
        batches = -(-len(members) // most)
        buckets.append(
            Bucket(tuple(members), -(-len(members) // batches), tokens, patches, max(1, int(limits[members].max())))
        )
    return buckets


def _split(kinds_U2: np.ndarray, counts_U: np.ndarray, shapes: int) -> list[tuple[int, int]]:
    """Sorted sizes cut into at most `shapes` runs (first, last) of least cost: prompts times the cost of the shape."""
    count = len(kinds_U2)
    best = np.full((shapes + 1, count + 1), np.inf)  # best[k, j]: the first j kinds in k runs
    best[:, 0] = 0
    cut = np.zeros((shapes + 1, count + 1), int)
    for last in range(1, count + 1):
        largest, number = np.zeros(2), 0
        for first in range(last - 1, -1, -1):
            largest, number = np.maximum(largest, kinds_U2[first]), number + counts_U[first]
            cost = number * _cost(*largest)
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


def pad(prompts: Sequence[Prompt], bucket: Bucket) -> Batch:
    """One prompt a row, right-padded to the bucket's shape; rows beyond the prompts are padding. Patches have the
    values of the first prompt with any; without images in the bucket there are none."""
    values = max(prompt.patches_PC.shape[-1] for prompt in prompts)
    batch = empty_batch(bucket.rows, bucket.tokens, bucket.patches, values)
    for row, prompt in enumerate(prompts):
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
