"""The numbers of an evaluation by short names, for a log and for choosing among checkpoints.

"TASK/METRIC", as "vqa/closed_accuracy", is the strict metric over all data sets and languages: the mean of what
scores.json has for each data set and language (and for boxes and points in 2D and 3D), weighted by its questions. For a
metric that is a mean over questions, that is the mean over all of them.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from umit_jax.eval.modes import STRICT, UNPARSED, families
from umit_jax.eval.predictions import Prediction, shape
from umit_jax.eval.score import grouped, statistics


class Named(NamedTuple):
    """n: questions that the metric is about."""

    value: float
    higher_is_better: bool
    n: int


def named(predictions: Sequence[Prediction]) -> dict[str, Named]:
    """{"TASK/METRIC": value} of all that can be computed; a metric that is undefined on a part leaves that part out."""
    parts: dict[str, list[Named]] = defaultdict(list)
    for about, members in grouped(predictions):
        if about["language"] == "all":
            continue
        for (_, metric), one in statistics(about, members, (STRICT,)).items():
            parts[f"{about['task']}/{metric}"].append(Named(one.point, one.higher_is_better, one.count))
    return {name: _together(found) for name, found in parts.items()}


def _together(parts: Sequence[Named]) -> Named:
    n = sum(part.n for part in parts)
    return Named(sum(part.value * part.n for part in parts) / n, parts[0].higher_is_better, n)


def names(questions: Sequence[dict[str, Any]]) -> list[str]:
    """The names that `named` may give for questions with these tasks and truths, on this machine."""
    found: dict[str, None] = {}
    for task, kind, dims in dict.fromkeys((question["task"], *shape(question["truth"])) for question in questions):
        here = [family for family in families((STRICT,), task, kind, dims) if not family.missing()]
        found |= dict.fromkeys(f"{task}/{name}" for family in here for name in (*family.names, UNPARSED))
    return list(found)
