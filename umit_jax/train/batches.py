"""What a stream gives to a run: which of its batches are taken, and what is checked before they reach a device.

The device clamps an index that is too large and compiles again for another shape, both in silence; so both are refused
here, by the name of the field.
"""

import contextlib
import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import ml_collections
import numpy as np
from jax.sharding import Mesh

from umit_jax.batch import Batch, check_batch
from umit_jax.model.config import ModelConfig
from umit_jax.parallel.mesh import global_batch
from umit_jax.train.skipped import Skipped


class BatchInfo(Protocol):
    """What the stream says of this process's part of a batch."""

    @property
    def sample_ids(self) -> Sequence[Sequence[str]]:
        """Ids per row."""
        ...

    @property
    def augmented(self) -> Mapping[str, Mapping[str, int]] | None:
        """{kind of augmentation: {what was done or why not: samples}}, None on every process where it is off."""
        ...


class Stream(Protocol):
    """The data: batch number `step` (from 0) is a function of the step alone, so one integer is its position."""

    def batches(self, start_step: int) -> Generator[tuple[Batch, Any], None, None]:
        """This process's rows (parallel.mesh.data_process) of batches start_step, start_step + 1, ... without end, each
        with its BatchInfo; closed when the run ends."""
        ...

    def counts(self, step: int) -> dict[str, Any]:
        """What the global batch of a step (from 0) holds, for the log: the same on every process."""
        ...


class BatchError(ValueError):
    """A batch that does not fit the model; the message names the field."""


class Taken(NamedTuple):
    """A batch as it comes from the stream. number: of the batch, from 0."""

    number: int
    local: Batch
    info: BatchInfo


Batches = Generator[Taken, None, None]


def taken(stream: Stream, skipped: Skipped, steps_done: int) -> Batches:
    """The batches of the steps after `steps_done`."""
    first = skipped.batch_of(steps_done + 1)
    with contextlib.closing(stream.batches(first)) as batches:
        for number, (local, info) in enumerate(batches, first):
            if number not in skipped.batches:
                yield Taken(number, local, info)


class Gate:
    """Lays batches over the devices; every one must have the shapes of the first."""

    def __init__(self, config: ml_collections.ConfigDict, model_config: ModelConfig, mesh: Mesh):
        self._rows, self._model, self._mesh = config.data.rows, model_config, mesh
        self.shapes: dict[str, tuple[int, ...]] | None = None  # of this process's batches, from the first on

    def first(self, local: Batch, step: int) -> Batch:
        """The first global batch, which is looked at more closely. Raises ValueError naming the field."""
        check_batch(local)
        self.shapes = _shapes(local)
        batch = self.place(local, step)
        rows, _, values = batch.patches_BPC.shape
        if rows != self._rows:
            raise BatchError(f"data.rows: expected {self._rows} rows of all processes, found {rows}")
        if values != self._model.vision.patch_values:
            expected = self._model.vision.patch_values
            raise BatchError(f"patches_BPC: expected {expected} values per patch, found {values}")
        return batch

    def place(self, local: Batch, step: int) -> Batch:
        """The global batch of a step. Raises BatchError."""
        if (found := _shapes(local)) != self.shapes:
            raise BatchError(f"step {step}: expected a batch of the first one's shapes {self.shapes}, found {found}")
        vocabulary = self._model.text.vocab_size
        for name, ids in (("tokens_BS", local.tokens_BS), ("targets_BS", local.targets_BS)):
            if ids.min(initial=0) < 0 or ids.max(initial=0) >= vocabulary:
                found = f"{ids.min()}..{ids.max()} at step {step}"
                raise BatchError(f"{name}: expected ids 0..{vocabulary - 1} of the model's vocabulary, found {found}")
        return global_batch(self._mesh, local)


def slots(batch: Batch) -> tuple[int, int]:
    """Tokens and patches that a global batch has room for."""
    return math.prod(batch.tokens_BS.shape), math.prod(batch.patches_BPC.shape[:2])


def _shapes(batch: Batch) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(value) for name, value in zip(batch._fields, batch, strict=True)}
