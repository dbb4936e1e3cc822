"""Metrics as functions of summed statistics: their 95 % intervals, and the significance of a difference of two runs.

Every metric here is value(sum over samples of a row of numbers): a mean is (sum, count), corpus BLEU is n-gram
counts and lengths, macro F1 is hits and misses per class, a ranking metric is the weights of its samples. So a
resample is one matrix product, and any metric gets its interval the same way. Samples of one patient (several images,
both languages of one question) are not independent: patients are drawn or exchanged, never samples.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

RESAMPLES = 2000
SEED = 0
_CHUNK = 2_000_000  # numbers in one block of resampled sums: 16 MB


@dataclasses.dataclass(frozen=True)
class Statistic:
    """sums_NK: one row per sample (a numpy array, or a scipy sparse one). value: (..., K) sums -> (...) metric; NaN
    where it is undefined.

    count: number of samples the metric is about. higher_is_better: direction of the metric. columns: names of the K
    columns where they depend on the samples (classes), so that two runs can be laid side by side.
    """

    sums_NK: Any
    value: Callable[[np.ndarray], np.ndarray]
    count: int
    higher_is_better: bool = True
    columns: tuple[Hashable, ...] | None = None

    @property
    def point(self) -> float:
        return float(self.value(np.asarray(self.sums_NK.sum(0))))

    def beside(self, other: "Statistic") -> "Statistic":
        """The samples of both as one statistic: rows of self, then rows of other."""
        own_NK, other_NK = self.sums_NK, other.sums_NK
        if self.columns is not None and other.columns is not None:
            names = {name: i for i, name in enumerate(dict.fromkeys(self.columns + other.columns))}
            own_NK = _spread(own_NK, [names[name] for name in self.columns], len(names))
            other_NK = _spread(other_NK, [names[name] for name in other.columns], len(names))
        both = np.concatenate([own_NK, other_NK])
        return dataclasses.replace(self, sums_NK=both, count=self.count + other.count, columns=None)


def _spread(sums_NK: np.ndarray, places: list[int], width: int) -> np.ndarray:
    wide = np.zeros((len(sums_NK), width))
    wide[:, places] = sums_NK
    return wide


def mean(values: Sequence[float], used: Sequence[bool] | None = None, *, higher_is_better: bool = True) -> Statistic:
    """Mean over the samples, or over those that are `used` (the others stay in the resampling with weight 0)."""
    used_N = np.ones(len(values), bool) if used is None else np.asarray(used, bool)
    values_N = np.where(used_N, np.asarray(values, np.float64), 0.0)
    return Statistic(np.stack([values_N, used_N], -1).astype(np.float64), ratio, int(used_N.sum()), higher_is_better)


def ratio(sums: np.ndarray) -> np.ndarray:
    """Column 0 over column 1; NaN where column 1 is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)


def interval(
    statistic: Statistic, clusters: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float] | None:
    """The 2.5 and 97.5 percentiles of the metric over resampled patients, or None with fewer than two patients,
    where the spread between patients cannot be known. clusters: the patient of each sample. Deterministic."""
    sums_MK = _by_cluster(statistic, clusters)
    if sums_MK.shape[0] < 2:
        return None
    return _percentiles(_values(statistic, sums_MK, _drawn(sums_MK.shape[0], resamples, seed)))


@dataclasses.dataclass(frozen=True)
class Difference:
    """b - a of one metric on the same samples. ci95: of the difference, over resampled patients. p: two-sided, the
    chance of a difference at least as large if it did not matter which run an answer came from. Both None with fewer
    than two patients."""

    value: float
    ci95: tuple[float, float] | None
    p: float | None


def compare(
    a: Statistic, b: Statistic, clusters: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = SEED
) -> Difference:
    """The paired difference of two runs over the same samples in the same order.

    p is from an approximate randomisation test (Noreen 1989): in each of `resamples` rounds the two runs' answers are
    exchanged for every patient with probability 1/2; p = (1 + rounds with |difference| as large) / (1 + rounds).
    """
    value = b.point - a.point
    a_MK, b_MK = _by_cluster(a, clusters), _by_cluster(b, clusters)
    patients = a_MK.shape[0]
    if patients < 2 or not np.isfinite(value):
        return Difference(value, None, None)
    drawn_RM = _drawn(patients, resamples, seed)
    ci95 = _percentiles(_values(b, b_MK, drawn_RM) - _values(a, a_MK, drawn_RM))
    both = a.beside(b)
    offset = [(side, cluster) for side in "ab" for cluster in clusters]
    both_2MK = _by_cluster(both, offset)
    swap_RM = np.random.default_rng(seed).integers(0, 2, (resamples, patients))
    left_R = _values(both, both_2MK, np.concatenate([1 - swap_RM, swap_RM], -1))
    right_R = _values(both, both_2MK, np.concatenate([swap_RM, 1 - swap_RM], -1))
    differences_R = np.abs(right_R - left_R)
    as_large = np.isfinite(differences_R) & (differences_R >= abs(value) - 1e-12)
    return Difference(value, ci95, float((1 + as_large.sum()) / (1 + resamples)))


def _by_cluster(statistic: Statistic, clusters: Sequence[Hashable]) -> Any:
    """Sums (M, K) over the samples of each patient, in order of first appearance."""
    samples = statistic.sums_NK.shape[0]
    if len(clusters) != samples:
        raise ValueError(f"clusters: expected one per sample ({samples}), found {len(clusters)}")
    index = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    rows = [index[cluster] for cluster in clusters]
    return sparse.csr_array((np.ones(samples), (rows, np.arange(samples))), (len(index), samples)) @ statistic.sums_NK


@functools.lru_cache(maxsize=2)  # the metrics of one group share their patients, and drawing is most of the work
def _drawn(patients: int, resamples: int, seed: int) -> np.ndarray:
    """How often each patient is drawn, (R, M): as many patients as there are, with replacement. Read only."""
    drawn_RM = np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), size=resamples)
    weights_RM = drawn_RM.astype(np.float64)
    weights_RM.flags.writeable = False
    return weights_RM


def _values(statistic: Statistic, sums_MK: Any, weights_RM: np.ndarray) -> np.ndarray:
    step = max(1, _CHUNK // max(1, sums_MK.shape[1]))
    blocks = [weights_RM[i : i + step] @ sums_MK for i in range(0, len(weights_RM), step)]
    return np.concatenate([statistic.value(block) for block in blocks])


def _percentiles(values_R: np.ndarray) -> tuple[float, float] | None:
    values_R = values_R[np.isfinite(values_R)]
    if not len(values_R):
        return None
    low, high = np.percentile(values_R, [2.5, 97.5])
    return float(low), float(high)
