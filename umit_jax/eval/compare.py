"""Two runs over the same questions: every metric of both, and whether their difference could be chance.

| key of a row      | meaning                                                                                |
| a, b, difference  | the metric of either run, and b - a                                                    |
| ci95              | of the difference, over resampled patients (the same patients in both runs)            |
| p                 | two-sided, from exchanging the runs' answers patient by patient (bootstrap.compare)    |
| p_holm            | p corrected for the number of rows with one (Holm 1979)                                |
| direction         | "higher" or "lower": which values are better                                           |
| better            | "a", "b", or null where the direction is not known at p_holm < 0.05                    |
| n, n_b            | questions that the metric is about in a and in b                                       |

Other keys are those of scores.json; a row about one class names it. ci95 and p are null with fewer than two patients.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from umit_jax.eval.bootstrap import Statistic
from umit_jax.eval.bootstrap import compare as paired
from umit_jax.eval.modes import STRICT, check_modes
from umit_jax.eval.predictions import Prediction, identity
from umit_jax.eval.score import SCHEMA, class_statistics, clusters, grouped, n_patients, statistics

LEVEL = 0.05


class ComparisonError(ValueError):
    """Two files of predictions that are not about the same questions; the message names the first difference."""


class Comparison(NamedTuple):
    """rows: of comparison.json. only_one: names of metrics that only one run has. not_computed: why one of the runs, or
    both, are without a metric: {mode and metric: reason}."""

    rows: list[dict[str, Any]]
    only_one: list[str]
    not_computed: dict[str, str]


def compare(
    a: Sequence[Prediction],
    b: Sequence[Prediction],
    *,
    modes: Sequence[str] = (),
    specificities: Sequence[float] = (),
) -> Comparison:
    """One row for each metric that both runs have, and for each class of options its sensitivity at these
    specificities; and the names of those that they do not both have.

    Raises ComparisonError where a question is in one file only, or its truth or patient differ.
    """
    modes = check_modes(modes)
    b = _in_order(a, b)
    place = {identity(prediction): i for i, prediction in enumerate(a)}
    rows: list[dict[str, Any]] = []
    only_one: list[str] = []
    not_computed: dict[str, str] = {}
    for about, members in grouped(a):
        others = [b[place[identity(prediction)]] for prediction in members]
        ours, theirs = (_statistics(about, side, modes, specificities, not_computed) for side in (members, others))
        for key in ours | theirs:
            mode, metric, word = key
            if key not in ours or key not in theirs:
                where = " ".join(str(about[name]) for name in ("task", "dataset", "language"))
                only_one.append(f"{mode} {metric} {where}{'' if word is None else f' class {word}'}")
                continue
            row = {"schema": SCHEMA, **about, "metric": metric, "mode": mode, "class": word}
            rows.append(row | _difference(ours[key], theirs[key], members))
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = corrected
        known = corrected is not None and corrected < LEVEL and row["difference"] != 0
        row["better"] = ("b" if (row["difference"] > 0) == (row["direction"] == "higher") else "a") if known else None
    return Comparison(rows, only_one, not_computed)


def _statistics(
    about: dict[str, Any],
    predictions: Sequence[Prediction],
    modes: Sequence[str],
    specificities: Sequence[float],
    not_computed: dict[str, str],
) -> dict[tuple[str, str, str | None], Statistic]:
    """{(mode, metric, class or None): statistic}."""
    found: dict[tuple[str, str, str | None], Statistic] = {
        (mode, metric, None): one for (mode, metric), one in statistics(about, predictions, modes, not_computed).items()
    }
    of_classes = class_statistics(predictions, specificities)
    return found | {(STRICT, metric, word): one for (metric, word), one in of_classes.items()}


def _difference(ours: Statistic, theirs: Statistic, members: Sequence[Prediction]) -> dict[str, Any]:
    found = paired(ours, theirs, clusters(members))
    return {
        "a": ours.point,
        "b": theirs.point,
        "difference": found.value,
        "ci95": found.ci95 and list(found.ci95),
        "p": found.p,
        "direction": "higher" if ours.higher_is_better else "lower",
        "n": ours.count,
        "n_b": theirs.count,
        "n_patients": n_patients(members),
    }


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction over the values that are known."""
    known = sorted((value, i) for i, value in enumerate(p) if value is not None)
    corrected: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, i) in enumerate(known):
        largest = max(largest, min(1.0, value * (len(known) - rank)))
        corrected[i] = largest
    return corrected


def _in_order(a: Sequence[Prediction], b: Sequence[Prediction]) -> list[Prediction]:
    """b in the order of a."""
    found = {identity(prediction): prediction for prediction in b}
    missing = [p for p in a if identity(p) not in found]
    known = {identity(prediction) for prediction in a}
    spare = [p for p in b if identity(p) not in known]
    for side, only in (("first", missing), ("second", spare)):
        if only:
            count = f"{len(only)} question{'s' if len(only) > 1 else ''}"
            raise ComparisonError(f"{count} only in the {side} run, such as id {only[0]['id']!r}: nothing is compared")
    for one in a:
        other = found[identity(one)]
        for field in ("truth", "patient_id", "heldout", "synthetic"):
            if one.get(field) != other.get(field):
                raise ComparisonError(f"id {one['id']!r}: {field} differs between the two runs")
    return [found[identity(prediction)] for prediction in a]
