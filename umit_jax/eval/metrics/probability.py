"""Strict metrics of the probabilities of options: accuracy, AUC, average precision and calibration error.

Only items with `scores` count. A class is (topic, option as folded text), as in classify.py; for each class, its
probability is set against "it is the truth" over the items that offer it, and the metric is the mean over the classes
that are true of some of them and false of others. With two options, AUC is that of either; with the same options in
every question it is MedMNIST's AUC (medmnist/evaluator.py: mean of one class against the rest). Their n is the
questions that offer at least one such class.

accuracy_by_likelihood: the fraction of items whose most probable option (of equal ones the first, as numpy's argmax) is
the truth, whatever the text says; MedMNIST's ACC where it is multi-class, ordinal or binary.

ece (Guo et al. 2017): the probability of the most probable option in 15 bins of equal width (0, 1/15], ...; the mean
over items of |accuracy - mean probability| of their bin. The answer is the most probable option, not the text.

sensitivity_at_specificity_S is the ROC curve's highest sensitivity for one class at a specificity of at least S, the
threshold being chosen on the very items it is measured on; of several topics with that class, the mean.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
from scipy import sparse

from umit_jax.eval.bootstrap import Statistic, mean
from umit_jax.eval.metrics import Item
from umit_jax.eval.normalise import fold

NAMES = ("auc", "average_precision", "ece", "accuracy_by_likelihood")
BINS = 15
_ROUNDING = 1e-9  # a tenth of ten negatives is one of them, whatever float64 makes of it


def probabilities(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with options; those without scores are left out, all of them: no metric."""
    used = [item.scores is not None for item in items]
    if not any(used):
        return {}
    classes = _classes(items)
    right = [item.scores is not None and _likeliest(item.scores) == item.truth["index"] for item in items]
    return {
        "auc": _Ranking.of(classes, len(items), _auc),
        "average_precision": _Ranking.of(classes, len(items), _average_precision),
        "ece": _calibration(items, sum(used)),
        "accuracy_by_likelihood": mean(right, used),
    }


def operating_points(items: Sequence[Item], specificities: Sequence[float]) -> dict[tuple[str, str], Statistic]:
    """{(metric, class): statistic}, a class being the folded text of an option, of those true of some items and false
    of others."""
    classes = _classes(items)
    found: dict[tuple[str, str], Statistic] = {}
    for word in sorted({word for _, word in classes}):
        own = {name: one for name, one in classes.items() if name[1] == word}
        if not any(one.ranked for one in own.values()):
            continue
        for specificity in specificities:
            metric = functools.partial(_sensitivity, specificity=specificity)
            found[f"sensitivity_at_specificity_{specificity:g}", word] = _Ranking.of(own, len(items), metric)
    return found


def _likeliest(scores: Sequence[float]) -> int:
    return int(np.argmax(scores))


@dataclasses.dataclass(frozen=True)
class _Class:
    """Samples that offer one class: their positions, the class's probability, and whether it is true."""

    samples: np.ndarray
    scores: np.ndarray
    positive: np.ndarray

    @property
    def ranked(self) -> bool:
        """True of some samples and false of others, so that they can be ranked."""
        return bool(self.positive.any() and not self.positive.all())


def _classes(items: Sequence[Item]) -> dict[tuple[str | None, str], _Class]:
    found: dict[tuple[str | None, str], list[tuple[int, float, bool]]] = {}
    for n, item in enumerate(items):
        for i, option in enumerate(item.truth["options"] if item.scores is not None else ()):
            assert item.scores is not None
            row = (n, float(item.scores[i]), i == item.truth["index"])
            found.setdefault((item.topic, fold(option)), []).append(row)
    columns = {name: zip(*rows, strict=True) for name, rows in found.items()}
    return {name: _Class(*(np.array(column) for column in rows)) for name, rows in columns.items()}


@dataclasses.dataclass(frozen=True)
class _Ranking(Statistic):
    """A metric of ranks: its sums are the weights of the samples themselves."""

    classes: dict[tuple[str | None, str], _Class] = dataclasses.field(default_factory=dict)
    metric: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None

    @classmethod
    def of(cls, classes: dict, samples: int, metric: Callable) -> "_Ranking":
        def value(weights: np.ndarray) -> np.ndarray:
            flat = weights.reshape(-1, weights.shape[-1])
            values_RC = [metric(flat[:, c.samples], c.scores, c.positive) for c in classes.values()]
            return _mean_of_known(np.stack(values_RC, -1)).reshape(weights.shape[:-1])

        # where no class is ranked the metric is undefined, of all samples
        counted = [c.samples for c in classes.values() if c.ranked] or [c.samples for c in classes.values()]
        count = len(np.unique(np.concatenate(counted)))
        return cls(sparse.eye_array(samples, format="csr"), value, count, True, None, classes, metric)

    def beside(self, other: Statistic) -> "_Ranking":
        assert isinstance(other, _Ranking)
        assert self.metric is not None
        first = self.sums_NK.shape[0]
        joined = {}
        for name in self.classes | other.classes:
            parts = [(c, shift) for c, shift in ((self.classes.get(name), 0), (other.classes.get(name), first)) if c]
            joined[name] = _Class(
                np.concatenate([c.samples + shift for c, shift in parts]),
                np.concatenate([c.scores for c, _ in parts]),
                np.concatenate([c.positive for c, _ in parts]),
            )
        return self.of(joined, first + other.sums_NK.shape[0], self.metric)


def _mean_of_known(values_RC: np.ndarray) -> np.ndarray:
    known = np.isfinite(values_RC)
    with np.errstate(invalid="ignore"):
        return np.where(known, values_RC, 0).sum(-1) / np.where(known.any(-1), known.sum(-1), np.nan)


def _ranked(weights_RN: np.ndarray, scores_N: np.ndarray, positive_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of positives and of negatives at each distinct score, (R, G) each, by falling score."""
    _, group_N = np.unique(-scores_N, return_inverse=True)
    groups = sparse.csr_array((np.ones(len(group_N)), (np.arange(len(group_N)), group_N)))
    return (weights_RN * positive_N) @ groups, (weights_RN * ~positive_N) @ groups


def _auc(weights_RN: np.ndarray, scores_N: np.ndarray, positive_N: np.ndarray) -> np.ndarray:
    """Chance that a positive outranks a negative, a tie counting half; NaN where either is missing."""
    positive_RG, negative_RG = _ranked(weights_RN, scores_N, positive_N)
    below_RG = negative_RG.sum(-1, keepdims=True) - negative_RG.cumsum(-1)
    won = (positive_RG * (below_RG + negative_RG / 2)).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return won / (positive_RG.sum(-1) * negative_RG.sum(-1))


def _average_precision(weights_RN: np.ndarray, scores_N: np.ndarray, positive_N: np.ndarray) -> np.ndarray:
    """Precision at each distinct score, weighted by the recall gained there; NaN where a side is missing."""
    positive_RG, negative_RG = _ranked(weights_RN, scores_N, positive_N)
    hits_RG = positive_RG.cumsum(-1)
    said_RG = hits_RG + negative_RG.cumsum(-1)
    total_R = positive_RG.sum(-1)
    precision_RG = np.divide(hits_RG, said_RG, out=np.zeros_like(hits_RG), where=said_RG > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        value_R = (precision_RG * positive_RG).sum(-1) / total_R
    return np.where((total_R > 0) & (negative_RG.sum(-1) > 0), value_R, np.nan)


def _sensitivity(
    weights_RN: np.ndarray, scores_N: np.ndarray, positive_N: np.ndarray, *, specificity: float
) -> np.ndarray:
    """The largest share of positives at or above a threshold that leaves `specificity` of the negatives below it."""
    positive_RG, negative_RG = _ranked(weights_RN, scores_N, positive_N)
    positives_R, negatives_R = positive_RG.sum(-1), negative_RG.sum(-1)
    allowed_RG = negative_RG.cumsum(-1) <= ((1 - specificity) * negatives_R + _ROUNDING)[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        value_R = np.where(allowed_RG, positive_RG.cumsum(-1), 0.0).max(-1) / positives_R
    return np.where((positives_R > 0) & (negatives_R > 0), value_R, np.nan)


def _calibration(items: Sequence[Item], count: int) -> Statistic:
    sums_N3K = np.zeros((len(items), 3, BINS))  # right answers, probabilities, items
    for n, item in enumerate(items):
        if item.scores is not None:
            best = _likeliest(item.scores)
            top = float(item.scores[best])
            bin_ = min(max(int(np.ceil(top * BINS)) - 1, 0), BINS - 1)
            sums_N3K[n, :, bin_] = best == item.truth["index"], top, 1
    return Statistic(sums_N3K.reshape(len(items), -1), _expected_error, count, higher_is_better=False)


def _expected_error(sums: np.ndarray) -> np.ndarray:
    right, probability, items = np.split(sums, 3, axis=-1)
    total = items.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, np.abs(right - probability).sum(-1) / total, np.nan)
