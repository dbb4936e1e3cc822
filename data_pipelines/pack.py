"""Rows of examples -> one Batch of static shape, and what is in it.

Each sample becomes a segment of its row; its positions start at 0, its patches follow those of the sample before, and
its patch segments and vision indices are moved on accordingly. What is left of a row is padding.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from data_pipelines.example import Example
from umit_jax.batch import TASKS, Batch, empty_batch


class PackError(ValueError):
    """Examples that do not fit their row."""


@dataclasses.dataclass(frozen=True)
class BatchInfo:
    """What a host batch holds: ids of the samples of each row, tokens that are not padding, and the parts of all tokens
    and patches that are not. augmented: {kind: {what was done or why not: samples}}, None where augmentation is off."""

    sample_ids: tuple[tuple[str, ...], ...]
    tokens: int
    fill_tokens: float
    fill_patches: float
    augmented: dict[str, dict[str, int]] | None = None


class Packing:
    """A batch while it is filled. A sample's patches may be cut into their place (`room`) before it is added."""

    def __init__(self, rows: int, row_tokens: int, row_patches: int, patch_values: int) -> None:
        self._batch = empty_batch(rows, row_tokens, 0, patch_values)._replace(
            patches_BPC=np.empty((rows, row_patches, patch_values), np.uint8),  # large: what stays empty is zeroed last
            patch_hw_BP2=np.zeros((rows, row_patches, 2), np.int32),
            patch_segments_BP=np.zeros((rows, row_patches), np.int32),
        )
        self.limits = row_tokens, row_patches
        self.rows: list[list[Example]] = [[] for _ in range(rows)]
        self._ends = [(0, 0, 0)] * rows  # tokens, patches and patch segments of each row

    def room(self, row: int, patches: int) -> np.ndarray:
        """Where the patches of the next sample of this row belong; memory of its own where they do not fit."""
        start = self._ends[row][1]
        if start + patches > self.limits[1]:
            return np.empty((patches, self._batch.patches_BPC.shape[2]), np.uint8)
        return self._batch.patches_BPC[row, start : start + patches]

    def add(self, row: int, example: Example) -> None:
        """Raises PackError naming a sample that does not fit."""
        (row_tokens, row_patches), batch = self.limits, self._batch
        token, patch, patch_segment = self._ends[row]
        tokens, patches = len(example.tokens_S), len(example.patches_PC)
        if token + tokens > row_tokens or patch + patches > row_patches:
            raise PackError(
                f"sample {example.id!r}: {tokens} tokens and {patches} patches do not fit into the "
                f"{row_tokens - token} and {row_patches - patch} left of row {row}"
            )
        at, patch_at = (row, slice(token, token + tokens)), (row, slice(patch, patch + patches))
        batch.tokens_BS[at] = example.tokens_S
        batch.positions_BS3[at] = example.positions_S3
        batch.segments_BS[at] = len(self.rows[row]) + 1
        batch.targets_BS[at] = example.targets_S
        batch.weights_BS[at] = example.weights_S
        batch.tasks_BS[at] = TASKS.index(example.task)
        index = example.vision_index_S
        batch.vision_index_BS[at] = index + (index >= 0) * (patch // 4)
        if patches:
            room = batch.patches_BPC[patch_at]
            if not np.may_share_memory(room, example.patches_PC):  # else they were cut into it
                room[:] = example.patches_PC
            batch.patch_hw_BP2[patch_at] = example.patch_hw_P2
            batch.patch_segments_BP[patch_at] = example.patch_segments_P + patch_segment
            patch_segment += int(example.patch_segments_P[-1])
        self.rows[row].append(example)
        self._ends[row] = token + tokens, patch + patches, patch_segment

    def finish(self) -> tuple[Batch, BatchInfo]:
        for row, (_, patch, _) in enumerate(self._ends):
            self._batch.patches_BPC[row, patch:] = 0
        return self._batch, batch_info(self.rows, *self.limits)


def pack_rows(rows: Sequence[Sequence[Example]], row_tokens: int, row_patches: int, patch_values: int = 1176) -> Batch:
    """Batch of len(rows) rows; a row may be empty. Raises PackError naming the first sample that does not fit."""
    packing = Packing(len(rows), row_tokens, row_patches, patch_values)
    for b, row in enumerate(rows):
        for example in row:
            packing.add(b, example)
    return packing.finish()[0]


def batch_info(rows: Sequence[Sequence[Example]], row_tokens: int, row_patches: int) -> BatchInfo:
    tokens = sum(len(example.tokens_S) for row in rows for example in row)
    patches = sum(len(example.patches_PC) for row in rows for example in row)
    return BatchInfo(
        sample_ids=tuple(tuple(example.id for example in row) for row in rows),
        tokens=tokens,
        fill_tokens=tokens / (len(rows) * row_tokens),
        fill_patches=patches / (len(rows) * row_patches),
        augmented=_augmented(example for row in rows for example in row),
    )


def _augmented(examples: Iterable[Example]) -> dict[str, dict[str, int]] | None:
    found: dict[str, dict[str, int]] | None = None
    for example in examples:
        if example.augmented is not None:
            found = {} if found is None else found
            for kind, outcome in example.augmented.items():
                outcomes = found.setdefault(kind, {})
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return found
