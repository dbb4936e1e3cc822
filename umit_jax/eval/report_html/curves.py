"""The numbers behind the page's plots: ROC curves, reliability bins and confusion matrices, by question and language.

A plot is of one (task, dataset, language, topic): what is asked decides what the options mean. A curve is of one
option, folded as metrics/probability.py folds it; of two options it is that of the positive one ("yes", "是", else the
last), as the other's is its mirror image. Its area is the AUC of that class; scores.json has their mean.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from umit_jax.batch import TASKS
from umit_jax.eval.metrics.probability import BINS
from umit_jax.eval.normalise import fold
from umit_jax.eval.report_html.judge import Judged

Group = tuple[str, str, str, str]  # task, dataset, language, topic
_POSITIVE = ("yes", "是")
LARGEST_MATRIX = 12  # options of a matrix that is shown whole
_AT = "sensitivity_at_specificity_"
_ROUNDING = 1e-9
_CONFUSIONS = 20  # pairs that are listed where there are more


@dataclasses.dataclass(frozen=True)
class Curve:
    """points: (false positive rate, sensitivity, threshold) from (0, 0) to (1, 1). counts: positives and negatives."""

    label: str
    area: float
    points: list[tuple[float, float, float]]
    positives: int
    negatives: int


@dataclasses.dataclass(frozen=True)
class Operating:
    """A point of a curve: the highest sensitivity where the specificity is at least what was asked for."""

    label: str
    asked: float
    sensitivity: float
    specificity: float
    threshold: float


@dataclasses.dataclass(frozen=True)
class Bin:
    probability: float
    accuracy: float
    count: int


@dataclasses.dataclass(frozen=True)
class Confusion:
    """rows[i][j]: questions with truth i answered j; the last column is unreadable answers. pairs: instead of rows
    where there are too many options, the commonest (truth, answer or None, count) that are wrong."""

    options: list[str]
    rows: list[list[int]]
    pairs: list[tuple[str, str | None, int]]
    right: int
    count: int
    other_pairs: int = 0


def by_question(examples: Sequence[Judged]) -> dict[Group, list[Judged]]:
    """Questions with options by what they ask, the most frequent of a task first."""
    groups: dict[Group, list[Judged]] = defaultdict(list)
    for example in examples:
        line = example.prediction
        if line["truth"]["kind"] == "options":
            groups[line["task"], line["dataset"], line["language"], line.get("topic") or ""].append(example)
    order = {task: i for i, task in enumerate(TASKS)}

    def place(group: Group) -> tuple[Any, ...]:
        task, dataset, language, topic = group
        return order.get(task, len(order)), task, -len(groups[group]), dataset, language, topic

    return {group: groups[group] for group in sorted(groups, key=place)}


def roc_curves(examples: Sequence[Judged]) -> list[Curve]:
    """One for each option that is the truth of some and not of others, of those with scores."""
    found: dict[str, tuple[str, list[float], list[bool]]] = {}
    for example in examples:
        scores, truth = example.prediction.get("scores") or (), example.prediction["truth"]
        for i, option in enumerate(truth["options"] if scores else ()):
            _, values, positive = found.setdefault(fold(option), (option, [], []))
            values.append(float(scores[i]))
            positive.append(i == truth["index"])
    wanted = list(found)
    if len(found) == 2:
        wanted = [next((name for name in found if name in _POSITIVE), wanted[-1])]
    curves = [_curve(found[name][0], np.array(found[name][1]), np.array(found[name][2])) for name in wanted]
    return [curve for curve in curves if curve.positives and curve.negatives]


def _curve(label: str, scores_N: np.ndarray, positive_N: np.ndarray) -> Curve:
    positives, negatives = int(positive_N.sum()), int((~positive_N).sum())
    order = np.argsort(-scores_N, kind="stable")
    last = np.append(np.diff(scores_N[order]) != 0, True)  # a tie is one step, so half of it counts
    hits_G = np.cumsum(positive_N[order])[last] / max(positives, 1)
    false_G = np.cumsum(~positive_N[order])[last] / max(negatives, 1)
    x, y = np.append(0.0, false_G), np.append(0.0, hits_G)
    area = float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum())
    thresholds = np.append(np.inf, scores_N[order][last])
    corner = np.ones(len(x), bool)  # points inside a level or an upright part add nothing
    corner[1:-1] = (x[:-2] != x[2:]) & (y[:-2] != y[2:])
    points = [(float(a), float(b), float(t)) for a, b, t in zip(x[corner], y[corner], thresholds[corner], strict=True)]
    return Curve(label, area, points, positives, negatives)


def specificities(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Those at which the rows of scores.json have a sensitivity."""
    found = [row["metric"].removeprefix(_AT) for row in rows if row["metric"].startswith(_AT)]
    return [float(text) for text in dict.fromkeys(found)]


def operating(curve: Curve, specificity: float) -> Operating:
    """As metric sensitivity_at_specificity_S chooses it."""
    allowed = [point for point in curve.points if point[0] <= 1 - specificity + _ROUNDING]
    x, y, threshold = max(allowed, key=lambda point: (point[1], -point[0]))
    return Operating(curve.label, specificity, y, 1 - x, threshold)


def reliability(examples: Sequence[Judged]) -> list[Bin]:
    """Bins of the highest probability that hold a question, as metric ece has them."""
    sums = np.zeros((BINS, 3))
    for example in examples:
        if (scores := example.prediction.get("scores")) is not None:
            best = int(np.argmax(scores))
            bin_ = min(max(int(np.ceil(scores[best] * BINS)) - 1, 0), BINS - 1)
            sums[bin_] += scores[best], best == example.prediction["truth"]["index"], 1
    return [Bin(float(p / n), float(right / n), int(n)) for p, right, n in sums if n]


def confusion(examples: Sequence[Judged]) -> Confusion:
    """What was said for what was true."""
    names: dict[str, str] = {}
    said: Counter[tuple[str, str | None]] = Counter()
    for example in examples:
        truth = example.prediction["truth"]
        for option in truth["options"]:
            names.setdefault(fold(option), option)
        answer = None if example.answer is None else fold(truth["options"][example.answer["index"]])
        said[fold(truth["options"][truth["index"]]), answer] += 1
    right, count = sum(n for (true, answer), n in said.items() if true == answer), said.total()
    if len(names) <= LARGEST_MATRIX:
        rows = [[said[true, answer] for answer in (*names, None)] for true in names]
        return Confusion(list(names.values()), rows, [], right, count)
    wrong = [(true, answer, n) for (true, answer), n in said.most_common() if true != answer]
    pairs = [(names[true], answer and names[answer], n) for true, answer, n in wrong[:_CONFUSIONS]]
    return Confusion(list(names.values()), [], pairs, right, count, len(wrong) - len(pairs))
