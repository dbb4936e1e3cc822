"""The row plan: which samples share which row, for every row of an endless training run, on any number of hosts.

A pure function of (seed, mixture weights, sample sizes): each epoch is shuffled, cut into windows of some thousand
samples, and each window packed by itself, best fit of tokens and patches together, its rows then shuffled. So the row
at any position can be worked out alone, in the memory of one window, and the position of a run is one number.

A source's weight is how often an epoch takes each of its samples: 2 takes all twice, 0.25 takes a quarter of them, the
next quarter in the next epoch. A window's last rows may be part empty; nothing is left over, lost or repeated.
"""

import bisect
import functools
import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.lengths import Sizes
from data_pipelines.paths import as_path, write_aside
from data_pipelines.shuffle import permute

_VERSION = 1  # of the order: a change of it makes old caches wrong
Row = list[tuple[int, int]]  # (source, record index) of each sample


class PlanError(ValueError):
    """A mixture that cannot be planned; the message names the source or the field."""


class RowPlan:
    """Rows of (row_tokens, row_patches), numbered from 0 through all epochs. Picklable."""

    def __init__(
        self,
        sources: Sequence[Sizes],
        weights: Sequence[float],
        *,
        row_tokens: int,
        row_patches: int,
        window: int = 16384,
        seed: int = 0,
        cache_dir: str | Path | None = None,
    ) -> None:
        if window < 1:
            raise PlanError(f"window: expected a positive number of samples, found {window}")
        if len(sources) != len(weights) or not sources:
            raise PlanError(f"weights: expected one for each of {len(sources)} sources, found {len(weights)}")
        for number, (sizes, weight) in enumerate(zip(sources, weights, strict=True)):
            if not weight > 0 or not np.isfinite(weight):
                raise PlanError(f"weight of source {number}: expected a positive number, found {weight}")
            if not len(sizes.index_M):
                raise PlanError(f"source {number}: no usable sample")
            if sizes.tokens_M.max() > row_tokens or sizes.patches_M.max() > row_patches:
                raise PlanError(f"source {number}: a sample is larger than a row of {row_tokens} and {row_patches}")
        self.sources, self.weights = tuple(sources), tuple(float(w) for w in weights)
        self.row_tokens, self.row_patches, self.window, self.seed = row_tokens, row_patches, window, seed
        self._starts = [0]  # first row of each window from the start of the run, and the end of the last known
        self._epochs = [0]  # first window of each epoch
        self._cache = None if cache_dir is None else as_path(cache_dir) / f"rows-{self._key()}.npy"
        if self._cache is not None and self._cache.is_file():
            with self._cache.open("rb") as file:
                self._starts = np.load(file).tolist()
        self._set_up()

    def _set_up(self) -> None:
        self._packed = functools.lru_cache(3)(self._pack_window)
        self._lock = threading.RLock()  # reader threads ask for rows at once

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_packed", "_lock")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._set_up()

    def samples_in_epoch(self, epoch: int) -> int:
        return sum(self._copies(epoch, source)[0] for source in range(len(self.sources)))

    def rows_in_epoch(self, epoch: int) -> int:
        """Packs what is not known yet of this epoch and those before it."""
        with self._lock:
            last = self._first_window(epoch + 1)
            while len(self._starts) <= last:
                self._extend()
            return self._starts[last] - self._starts[self._first_window(epoch)]

    def fill(self, epoch: int) -> tuple[float, float]:
        """The parts of an epoch's row tokens and row patches that hold samples. Epochs without a sample have none."""
        first, last = self._first_window(epoch), self._first_window(epoch + 1)
        parts = [self._samples(window) for window in range(first, last)]
        rows = max(self.rows_in_epoch(epoch), 1)
        return (
            sum(int(tokens.sum()) for *_, tokens, _ in parts) / (rows * self.row_tokens),
            sum(int(patches.sum()) for *_, patches in parts) / (rows * self.row_patches),
        )

    def epoch_of_row(self, row: int) -> int:
        with self._lock:
            return self._epoch_of_window(self._window_of_row(row))

    def row(self, row: int) -> Row:
        """The samples of a row, 0 <= row."""
        with self._lock:
            window = self._window_of_row(row)
            source_n, index_n, row_n = self._packed(window)
        chosen = np.flatnonzero(row_n == row - self._starts[window])
        return [(int(source_n[i]), int(index_n[i])) for i in chosen]

    def _window_of_row(self, row: int) -> int:
        while self._starts[-1] <= row:
            self._extend()
        return bisect.bisect_right(self._starts, row) - 1

    def _extend(self) -> None:
        window = len(self._starts) - 1
        rows = int(self._packed(window)[2].max()) + 1
        self._starts.append(self._starts[window] + rows)
        if self._cache is not None and self._epoch_of_window(window + 1) > self._epoch_of_window(window):
            write_aside(self._cache, lambda file: np.save(file, np.array(self._starts)))

    def _first_window(self, epoch: int) -> int:
        while len(self._epochs) <= epoch:
            self._epochs.append(self._epochs[-1] + -(-self.samples_in_epoch(len(self._epochs) - 1) // self.window))
        return self._epochs[epoch]

    def _epoch_of_window(self, window: int) -> int:
        while self._epochs[-1] <= window:
            self._first_window(len(self._epochs))
        return bisect.bisect_right(self._epochs, window) - 1

    def _copies(self, epoch: int, source: int) -> tuple[int, int, int]:
        """(samples taken, full copies, where the fraction starts) of a source in an epoch."""
        count, weight = len(self.sources[source].index_M), self.weights[source]
        whole, fraction = int(weight), weight - int(weight)
        start, end = round(epoch * fraction * count), round((epoch + 1) * fraction * count)
        return whole * count + end - start, whole, start

    def _samples(self, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(source, record index, tokens, patches) of each sample of a window."""
        epoch = self._epoch_of_window(window)
        count, first = self.samples_in_epoch(epoch), self._first_window(epoch)
        windows = self._first_window(epoch + 1) - first
        low, high = ((window - first + i) * count // windows for i in (0, 1))  # windows of one epoch differ by one
        drawn = permute(np.arange(low, high), count, self.seed, 1, epoch)
        ends = np.cumsum([self._copies(epoch, source)[0] for source in range(len(self.sources))])
        source_n = np.searchsorted(ends, drawn, side="right")
        columns = np.zeros((3, len(drawn)), np.int64)
        for number, sizes in enumerate(self.sources):
            taken, whole, start = self._copies(epoch, number)
            own, total = source_n == number, len(sizes.index_M)
            place = drawn[own] - (ends[number] - taken)
            # Fractions walk through one fixed order of the source, so that none comes back before all have been seen.
            walked = permute((start + place - whole * total) % total, total, self.seed, 2, number)
            member = np.where(place < whole * total, place % total, walked)
            columns[:, own] = sizes.index_M[member], sizes.tokens_M[member], sizes.patches_M[member]
        return source_n, columns[0], columns[1], columns[2]

    def _pack_window(self, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(source, record index, row from the window's first) of each sample."""
        source_n, index_n, tokens_n, patches_n = self._samples(window)
        row_n = best_fit(tokens_n, patches_n, self.row_tokens, self.row_patches)
        rows = int(row_n.max()) + 1
        # Best fit puts the large samples first: without this, every window would run from long to short.
        return source_n, index_n, permute(np.arange(rows), rows, self.seed, 3, window)[row_n]

    def _key(self) -> str:
        sha = hashlib.sha256(
            repr((_VERSION, self.weights, self.row_tokens, self.row_patches, self.window, self.seed)).encode()
        )
        for sizes in self.sources:
            for array in (sizes.tokens_M, sizes.patches_M):
                sha.update(np.ascontiguousarray(array, np.int64).tobytes() + b"|")
        return sha.hexdigest()[:24]


def best_fit(tokens_N: np.ndarray, patches_N: np.ndarray, row_tokens: int, row_patches: int) -> np.ndarray:
    """row_N: the row of each sample, from 0. Largest first, each into the row it leaves fullest.

    "Large" and "full" weigh a row's tokens and patches alike, in integers, so that every machine packs alike.
    """
    need_t, need_p = tokens_N.astype(np.int64) * row_patches, patches_N.astype(np.int64) * row_tokens
    capacity = row_tokens * row_patches
    order = np.argsort(-np.maximum(need_t, need_p), kind="stable")
    # The least that any later sample needs: a row with less is closed and no longer looked at.
    least_t, least_p = (np.minimum.accumulate(need[order][::-1])[::-1].tolist() for need in (need_t, need_p))
    free_t, free_p, number = (np.empty(len(order), np.int64) for _ in range(3))
    row_N, is_open, rows = np.empty(len(order), np.int64), 0, 0
    for k, (i, t, p) in enumerate(zip(order.tolist(), need_t[order].tolist(), need_p[order].tolist(), strict=True)):
        open_t, open_p = free_t[:is_open], free_p[:is_open]
        fits = np.flatnonzero((open_t >= t) & (open_p >= p))
        if len(fits):
            row = fits[np.argmin(open_t[fits] + open_p[fits])]
        else:
            row, is_open = is_open, is_open + 1
            free_t[row] = free_p[row] = capacity
            number[row], rows = rows, rows + 1
        free_t[row] -= t
        free_p[row] -= p
        row_N[i] = number[row]
        following = min(k + 1, len(order) - 1)
        if free_t[row] < least_t[following] or free_p[row] < least_p[following]:
            is_open -= 1
            for array in (free_t, free_p, number):
                array[row] = array[is_open]
    return row_N
