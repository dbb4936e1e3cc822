"""Strict classification metrics: accuracy, and F1 averaged over classes.

A class is (topic, option as folded text): numbering and order of options may differ between questions. The average
is over the classes that are the truth or the answer of some item, scikit-learn's default. An unparsed answer misses
its true class and counts for no other.
"""

from collections.abc import Sequence

import numpy as np

from umit_jax.eval.bootstrap import Statistic, mean
from umit_jax.eval.metrics import Item
from umit_jax.eval.metrics.vqa import is_right
from umit_jax.eval.normalise import fold
from umit_jax.targets import Target


def classification(items: Sequence[Item]) -> dict[str, Statistic]:
    return {"accuracy": mean([is_right(item) for item in items]), "macro_f1": _macro_f1(items)}


def _class(item: Item, target: Target) -> tuple[str | None, str]:
    return item.topic, fold(target["options"][target["index"]])


def _macro_f1(items: Sequence[Item]) -> Statistic:
    pairs = [(_class(item, item.truth), _class(item, item.answer) if item.answer else None) for item in items]
    classes = {name: i for i, name in enumerate(dict.fromkeys(c for pair in pairs for c in pair if c is not None))}
    counts_NC2 = np.zeros((len(items), len(classes), 2))  # hits; truths plus answers
    for n, (truth, answer) in enumerate(pairs):
        counts_NC2[n, classes[truth], 0] = truth == answer
        for name in (truth, answer):
            if name is not None:
                counts_NC2[n, classes[name], 1] += 1
    # class by class: two runs that name other classes stay aligned when theirs are added at the end
    names = tuple((name, part) for name in classes for part in ("hits", "occurrences"))
    return Statistic(counts_NC2.reshape(len(items), -1), _mean_f1, len(items), columns=names)


def _mean_f1(sums: np.ndarray) -> np.ndarray:
    """sums (..., C * 2) -> (...): the mean of 2 hits / (truths + answers) over the classes that occur."""
    hits, occurrences = sums[..., ::2], sums[..., 1::2]
    f1 = 2 * hits / np.maximum(occurrences, 1)
    return f1.sum(-1) / np.maximum((occurrences > 0).sum(-1), 1)
