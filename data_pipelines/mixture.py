"""The training stream: shard sets and weights -> this host's packed batches, from any step on.

    shards -> lengths -> row plan -> Grain: planned rows -> records -> (augmented) examples -> Batch -> prefetch

A global batch is `rows` consecutive rows of the plan; host p of n takes the p-th n-th of them, in order. So the global
batch is the same array on any number of hosts, and the position of the stream is the step alone.
"""

import collections
import dataclasses
import functools
import itertools
import math
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from data_pipelines.augment import Augmenter
from data_pipelines.augment_settings import Settings
from data_pipelines.example import Example, Limits, Room, build_example
from data_pipelines.image import Processing
from data_pipelines.lengths import LengthError, Sizes, fit, measure
from data_pipelines.pack import BatchInfo, Packing
from data_pipelines.plan import Row, RowPlan
from data_pipelines.shards import RecordSource, open_shards
from data_pipelines.tokenizer import Tokenizer
from data_pipelines.weights import mixture_weights
from umit_jax.batch import TASKS, Batch

__all__ = ["BatchInfo", "Stream", "StreamError", "make_stream"]
_ENDLESS = 1 << 40  # batches; Grain wants a length
_THREADS = 2


class StreamError(ValueError):
    """A data setting that cannot be; the message names the field of the config."""


def make_stream(
    data: Any,
    sources: Mapping[Path, float],
    tokenizer: Tokenizer,
    processing: Processing,
    *,
    caps: Mapping[Path, int] | None = None,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    process_index: int = 0,
    process_count: int = 1,
    cache_bytes: int = 256 << 20,
) -> "Stream":
    """The stream of a training config's `data` section.

    data: split, tasks, row_tokens, row_patches, rows, oversize, loss_weight, window, workers, prefetch, augment as
    attributes; loss_weight: "token", every answer token weighs 1; "sample", every sample does, so that a one-word
    answer is not drowned by a page of report. sources: shard directory -> times per epoch; caps: -> at most so many of
    its samples an epoch; data.temperature flattens the shares (see weights.py). cache_dir: where lengths and the plan
    are kept between runs. cache_bytes: memory of this host for examples that come again (a small set is decoded once;
    augmented examples do not come again).
    """
    if data.loss_weight not in ("token", "sample"):
        raise StreamError(f"data.loss_weight: expected token | sample, found {data.loss_weight!r}")
    if process_count < 1 or data.rows % process_count or not 0 <= process_index < process_count:
        raise StreamError(f"data.rows: {data.rows} rows cannot be shared by {process_count} hosts")
    if data.rows < 1 or data.workers < 0 or data.prefetch < 1:
        raise StreamError("data: rows and prefetch must be at least 1 and workers at least 0")
    if data.row_patches % processing.merge**2:
        raise StreamError(f"data.row_patches: expected a multiple of {processing.merge**2}, found {data.row_patches}")
    augment = Settings.from_config(data.augment)
    limits = Limits(data.row_tokens, data.row_patches)
    opened, sizes = [], []
    for directory in sources:
        source = open_shards(directory, data.split)
        lengths = measure(source, tokenizer, processing, cache_dir)
        found = fit(source, lengths, tokenizer, processing, limits, data.oversize, data.tasks)
        if not len(found.index_M):
            wanted = f" of tasks {', '.join(data.tasks)}" if data.tasks else ""
            raise LengthError(f"{directory}: no usable sample{wanted} in split {data.split!r}")
        opened.append(source)
        sizes.append(found)
    weights = mixture_weights(
        [len(found.index_M) for found in sizes],
        list(sources.values()),
        temperature=data.temperature,
        caps=[(caps or {}).get(directory, 0) for directory in sources],
    )
    plan = RowPlan(
        sizes,
        weights,
        row_tokens=data.row_tokens,
        row_patches=data.row_patches,
        window=data.window,
        seed=seed,
        cache_dir=cache_dir,
    )
    per_worker = cache_bytes // max(data.workers, 1)
    augmenter = None if augment is None else Augmenter(augment, tokenizer, processing, limits, seed)
    even = data.loss_weight == "sample"
    loader = _Loader(opened, tokenizer, processing, limits, per_worker, even=even, augmenter=augmenter)
    return Stream(plan, loader, sizes, data.rows, process_index, process_count, data.workers, data.prefetch)


class Stream:
    """Endless batches of this host. rows_per_epoch, steps_per_epoch: of the first epoch."""

    def __init__(
        self,
        plan: RowPlan,
        loader: "_Loader",
        sizes: Sequence[Sizes],
        rows: int,
        process_index: int,
        process_count: int,
        workers: int,
        prefetch: int,
    ) -> None:
        self.plan, self.rows, self._loader, self._sizes = plan, rows, loader, sizes
        self.local_rows, self.process_index = rows // process_count, process_index
        self.workers, self.prefetch = workers, prefetch
        self.rows_per_epoch = plan.rows_in_epoch(0)
        self.steps_per_epoch = self.rows_per_epoch / rows

    def summary(self) -> dict[str, Any]:
        """Known before the first step: samples and rows of an epoch, fill rates, what was shrunk or left out."""
        fill_tokens, fill_patches = self.plan.fill(0)
        dropped = [entry for sizes in self._sizes for entry in sizes.dropped]
        return {
            "samples_per_epoch": self.plan.samples_in_epoch(0),
            "rows_per_epoch": self.rows_per_epoch,
            "steps_per_epoch": self.steps_per_epoch,
            "fill_tokens": fill_tokens,
            "fill_patches": fill_patches,
            "shrunk": [id for sizes in self._sizes for id in sizes.shrunk],
            "dropped": dropped,
            "dropped_reasons": dict(collections.Counter(entry["reason"] for entry in dropped)),
        }

    def counts(self, step: int) -> dict[str, dict[str, dict[str, int]]]:
        """{dataset: {task: {samples, tokens, patches}}} of the global batch of a step, the same on every host."""
        drawn_N2 = np.array(list(itertools.chain.from_iterable(self.row_samples(step)))).reshape(-1, 2)
        found: dict[str, dict[str, dict[str, int]]] = {}
        for source in np.unique(drawn_N2[:, 0]):
            sizes = self._sizes[source]
            at = np.searchsorted(sizes.index_M, drawn_N2[drawn_N2[:, 0] == source, 1])
            tasks = found.setdefault(self._loader.sources[source].name, {})
            for task in np.unique(sizes.task_M[at]):
                own = at[sizes.task_M[at] == task]
                entry = tasks.setdefault(TASKS[task], {"samples": 0, "tokens": 0, "patches": 0})
                entry["samples"] += len(own)
                entry["tokens"] += int(sizes.tokens_M[own].sum())
                entry["patches"] += int(sizes.patches_M[own].sum())
        return found

    def steps_of_epochs(self, epochs: float) -> int:
        """Steps that take `epochs` epochs, the last batch filled up from the next one."""
        whole = int(epochs)
        rows = sum(self.plan.rows_in_epoch(epoch) for epoch in range(whole))
        if epochs > whole:
            rows += math.ceil((epochs - whole) * self.plan.rows_in_epoch(whole))
        return math.ceil(rows / self.rows)

    def row_samples(self, step: int) -> list[list[tuple[int, int]]]:
        """(source, record index) of the samples of each row of the global batch of a step."""
        return [self.plan.row(step * self.rows + r) for r in range(self.rows)]

    def batches(self, start_step: int = 0) -> Generator[tuple[Batch, BatchInfo], None, None]:
        """This host's part of the global batches from start_step on, decoded ahead; close the iterator when done."""
        import grain  # imports jax where that is installed, so not before it is needed

        first = self.process_index * self.local_rows
        planned = grain.MapDataset.source(_HostRows(self.plan, self.rows, first, self.local_rows))
        batches = planned[start_step:].map(self._loader.load)
        ahead = grain.ReadOptions(num_threads=min(_THREADS, self.prefetch), prefetch_buffer_size=self.prefetch)
        stream = batches.to_iter_dataset(ahead)
        if self.workers:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own, and ours is no absl program
            each = max(1, self.prefetch // self.workers)
            stream = stream.mp_prefetch(grain.MultiprocessingOptions(self.workers, each))
        iterator = iter(stream)
        try:
            yield from iterator
        finally:
            iterator.close()


@dataclasses.dataclass(frozen=True)
class _HostRows:
    """One host's part of the global batches as a Grain source."""

    plan: RowPlan
    rows: int
    first: int
    local: int

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, step: int) -> list[tuple[int, Row]]:
        """(epoch, samples) of each of this host's rows of a step."""
        first = step * self.rows + self.first
        return [(self.plan.epoch_of_row(row), self.plan.row(row)) for row in range(first, first + self.local)]


class _Loader:
    """Planned rows -> Batch. As many examples as fit a bound of memory are kept for when they come again; patches of
    the others are cut into the batch at once."""

    def __init__(
        self,
        sources: Sequence[RecordSource],
        tokenizer: Tokenizer,
        processing: Processing,
        limits: Limits,
        cache_bytes: int,
        even: bool,
        augmenter: Augmenter | None = None,
    ) -> None:
        self.sources, self.tokenizer, self.processing, self.limits = sources, tokenizer, processing, limits
        self.cache_bytes, self.even, self.augmenter = 0 if augmenter else cache_bytes, even, augmenter
        self._set_up()

    def _set_up(self) -> None:
        self._kept: dict[tuple[int, int], Example] = {}
        self._bytes, self._full = 0, not self.cache_bytes
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_kept", "_bytes", "_full", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set_up()

    def load(self, planned: Sequence[tuple[int, Row]]) -> tuple[Batch, BatchInfo]:
        packing = Packing(len(planned), self.limits.tokens, self.limits.patches, self.processing.patch_values)
        for b, (epoch, row) in enumerate(planned):
            for sample in row:
                packing.add(b, self._example(epoch, *sample, functools.partial(packing.room, b)))
        return packing.finish()

    def _example(self, epoch: int, source: int, index: int, room: Room) -> Example:
        key = source, index
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        record = self.sources[source][index]
        into = room if self._full else None
        if self.augmenter is None:
            example = build_example(record, self.tokenizer, self.processing, self.limits, into)
        else:
            example = self.augmenter.example(record, epoch, into)
        if self.even:
            example.weights_S /= example.weights_S.sum()
        if into is None:
            self._keep(key, example)
        return example

    def _keep(self, key: tuple[int, int], example: Example) -> None:
        with self._lock:
            if key not in self._kept:
                self._full = self._full or self._bytes + example.nbytes > self.cache_bytes
                if not self._full:
                    self._kept[key] = example
                    self._bytes += example.nbytes
