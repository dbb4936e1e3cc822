"""Metrics as functions of summed statistics, and their 95 % intervals by resampling patients.

Every metric here is value(sum over samples of a row of numbers): a mean is (sum, count), corpus BLEU is n-gram
counts and lengths, macro F1 is hits and misses per class. So a resample is one matrix product, and any metric gets
its interval the same way. Samples of one patient (several images, both languages of one question) are not
independent: the bootstrap draws patients, never samples.
"""

import dataclasses
from collections.abc import Callable, Hashable, Sequence

import numpy as np

RESAMPLES = 2000
SEED = 0


@dataclasses.dataclass(frozen=True)
class Statistic:
    """sums_NK: one row per sample. value: (..., K) sums -> (...) metric; NaN where it is undefined.

    count: number of samples the metric is about. higher_is_better: direction of the metric.
    """

    sums_NK: np.ndarray
    value: Callable[[np.ndarray], np.ndarray]
    count: int
    higher_is_better: bool = True

    @property
    def point(self) -> float:
        return float(self.value(self.sums_NK.sum(0)))


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
    if len(clusters) != len(statistic.sums_NK):
        raise ValueError(f"clusters: expected one per sample ({len(statistic.sums_NK)}), found {len(clusters)}")
    index = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    count = len(index)
    if count < 2:
        return None
    sums_MK = np.zeros((count, statistic.sums_NK.shape[1]))
    np.add.at(sums_MK, [index[cluster] for cluster in clusters], statistic.sums_NK)
    rng = np.random.default_rng(seed)
    weights_RM = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    values_R = statistic.value(weights_RM @ sums_MK)
    values_R = values_R[np.isfinite(values_R)]
    if not len(values_R):
        return None
    low, high = np.percentile(values_R, [2.5, 97.5])
    return float(low), float(high)
