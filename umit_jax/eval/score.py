"""Predictions -> scores.json, without the model: parse each text again, score it strictly, beside a baseline.

| key of a row       | meaning                                                                                 |
| schema             | version of this table; a key is added without a new version, never renamed or removed   |
| task, dataset      | scored together; so are the kind of truth, 2D or 3D, heldout and synthetic              |
| language           | one language, or "all" (not for reports, whose metrics have no meaning across languages) |
| metric, mode       | name of the metric, and the convention it follows (modes.py)                            |
| value, ci95        | the metric and its interval over patients, null with fewer than two patients            |
| baseline, baseline_ci95 | the same of the naive baseline on the same questions, null where a line has none   |
| better             | "higher" or "lower"                                                                     |
| beats_baseline     | the two intervals do not overlap and ours is the better; null where either is missing   |
| class              | the option that the metric is about (sensitivity_at_specificity_S), null: not about one  |
| n, n_patients      | questions, and patients among them (null where a line names none)                       |
| dims, heldout, synthetic | 2 or 3 for boxes and points; "patient" or "region"; true if no such patient exists |

breakdown.json has the same rows, strict and other modes, for parts of a row of scores.json: `by` is "modality" or
"topic" (what was asked, the type of the question) and `part` its value. A row with only one part is not divided.
"""

import dataclasses
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from umit_jax.eval.bootstrap import Statistic, interval, mean
from umit_jax.eval.metrics import Item
from umit_jax.eval.metrics.probability import operating_points
from umit_jax.eval.modes import STRICT, UNPARSED, check_modes, families
from umit_jax.eval.predictions import Prediction, PredictionError, read, shape
from umit_jax.targets import Target

SCHEMA = 1
PARTS = ("modality", "topic")
Row = dict[str, Any]


@dataclasses.dataclass
class Scores:
    """rows of scores.json and of breakdown.json, and what could not be computed: {mode and metric: reason}."""

    rows: list[Row] = dataclasses.field(default_factory=list)
    breakdown: list[Row] = dataclasses.field(default_factory=list)
    not_computed: dict[str, str] = dataclasses.field(default_factory=dict)


def score(
    predictions: Sequence[Prediction], *, modes: Sequence[str] = (), specificities: Sequence[float] = ()
) -> Scores:
    """Every metric of the strict convention and of `modes`, and for each class of options its sensitivity at these
    specificities. Raises ModeError, and PredictionError for confidences that do not fit the boxes of their text."""
    modes = check_modes(modes)
    scores = Scores()
    for about, members in grouped(predictions):
        scores.rows += _rows(about, members, modes, scores.not_computed)
        scores.rows += _operating_points(about, members, specificities)
        for by in PARTS:
            parts: dict[str, list[Prediction]] = defaultdict(list)
            for prediction in members:
                if prediction.get(by) is not None:
                    parts[prediction[by]].append(prediction)
            if len(parts) > 1:
                for part in sorted(parts):
                    where = {**about, "by": by, "part": part}
                    scores.breakdown += _rows(where, parts[part], modes, {})
    return scores


def grouped(predictions: Sequence[Prediction]) -> Iterator[tuple[Row, list[Prediction]]]:
    """(what its rows are about, predictions) of everything that is scored together, in a fixed order."""
    groups: dict[tuple[Any, ...], list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        kind, dims = shape(prediction["truth"])
        group = (prediction["task"], prediction["dataset"], kind, dims)
        group += (prediction.get("heldout"), bool(prediction.get("synthetic")))
        for language in (prediction["language"], "all"):
            groups[(*group, language)].append(prediction)
    for group in sorted(groups, key=str):
        task, dataset, kind, dims, heldout, synthetic, language = group
        if language == "all" and kind == "text" and task != "vqa":
            continue  # reports: no metric of theirs has a meaning across languages
        about = {"task": task, "dataset": dataset, "language": language}
        yield about | {"dims": dims, "heldout": heldout, "synthetic": synthetic}, groups[group]


def clusters(predictions: Sequence[Prediction]) -> list[tuple[str, Any]]:
    """The patient of each prediction; a prediction that names none is a patient of its own."""
    patients = [prediction.get("patient_id") for prediction in predictions]
    return [("sample", i) if patient is None else ("patient", patient) for i, patient in enumerate(patients)]


def n_patients(predictions: Sequence[Prediction]) -> int | None:
    """Patients among the predictions, None where one of them names none."""
    patients = {prediction.get("patient_id") for prediction in predictions}
    return None if None in patients else len(patients)


def statistics(
    about: Row, predictions: Sequence[Prediction], modes: Sequence[str], not_computed: dict[str, str] | None = None
) -> dict[tuple[str, str], Statistic]:
    """{(mode, metric): statistic} of predictions that are scored together. not_computed takes the reasons of those
    that this machine lacks something for."""
    return _statistics(about, _items(predictions), predictions, modes, {} if not_computed is None else not_computed)


def class_statistics(
    predictions: Sequence[Prediction], specificities: Sequence[float]
) -> dict[tuple[str, str], Statistic]:
    """{(metric, class): statistic} of predictions that are scored together; {} where their truths are no options."""
    if not specificities or shape(predictions[0]["truth"])[0] != "options":
        return {}
    return operating_points(_items(predictions), list(dict.fromkeys(specificities)))


def _statistics(
    about: Row, items: list[Item], predictions: Sequence[Prediction], modes: Sequence[str], left_out: dict[str, str]
) -> dict[tuple[str, str], Statistic]:
    kind, dims = shape(predictions[0]["truth"])
    found: dict[tuple[str, str], Statistic] = {}
    for family in families(modes, about["task"], kind, dims):
        if reason := family.missing():
            left_out |= {f"{family.mode} {name}": reason for name in family.names}
            continue
        for name, statistic in family.score(items).items():
            if name not in family.names:
                raise ValueError(f"{family.mode} {name}: computed, but not listed in modes.py")
            if statistic.count and math.isfinite(statistic.point):
                found[family.mode, name] = statistic
            elif statistic.count:
                where = " ".join(str(about[key]) for key in ("task", "dataset", "language"))
                left_out[f"{family.mode} {name} {where}"] = "undefined: it needs samples of more than one class"
    found[STRICT, UNPARSED] = mean([item.answer is None for item in items], higher_is_better=False)
    return found


def _rows(about: Row, predictions: list[Prediction], modes: Sequence[str], not_computed: dict[str, str]) -> list[Row]:
    patients = clusters(predictions)
    ours = statistics(about, predictions, modes, not_computed)
    theirs: dict[tuple[str, str], Statistic] = {}
    if all(prediction.get("baseline") is not None for prediction in predictions):
        items = _items(predictions, [prediction["baseline"] for prediction in predictions])
        theirs = _statistics(about, items, predictions, modes, {})
        del theirs[STRICT, UNPARSED]
    return [
        _row(about, name, mode, statistic, predictions, patients, theirs.get((mode, name)))
        for (mode, name), statistic in ours.items()
    ]


def _operating_points(about: Row, predictions: list[Prediction], specificities: Sequence[float]) -> list[Row]:
    patients = clusters(predictions)
    return [
        {**_row(about, name, STRICT, statistic, predictions, patients, None), "class": word}
        for (name, word), statistic in class_statistics(predictions, specificities).items()
    ]


def _row(
    about: Row,
    name: str,
    mode: str,
    statistic: Statistic,
    predictions: list[Prediction],
    patients: list[tuple[str, Any]],
    against: Statistic | None,
) -> Row:
    ci95 = interval(statistic, patients)
    baseline_ci95 = interval(against, patients) if against else None
    return {
        "schema": SCHEMA,
        **about,
        "metric": name,
        "mode": mode,
        "class": None,
        "value": statistic.point,
        "ci95": ci95 and list(ci95),
        "baseline": against.point if against else None,
        "baseline_ci95": baseline_ci95 and list(baseline_ci95),
        "better": "higher" if statistic.higher_is_better else "lower",
        "beats_baseline": _beats(ci95, baseline_ci95, statistic.higher_is_better),
        "n": statistic.count,
        "n_patients": n_patients(predictions),
    }


def _items(predictions: Sequence[Prediction], baselines: Sequence[Target] | None = None) -> list[Item]:
    """What is scored: the answers of the texts, or the baselines as if they had been said."""
    items = []
    for i, prediction in enumerate(predictions):
        answer = read(prediction).target if baselines is None else baselines[i]
        scores = prediction.get("scores") if baselines is None else None
        if scores is not None and answer is not None and "items" in answer and len(scores) != len(answer["items"]):
            raise PredictionError(f"id {prediction['id']!r}: scores: expected {len(answer['items'])}, one a box")
        text = prediction["text"] if baselines is None else _said(baselines[i])
        about = (prediction["language"], prediction.get("topic"), text, scores, prediction["dataset"])
        rare = tuple(prediction.get("rare_words") or ())
        items.append(Item(prediction["truth"], answer, *about, prediction.get("modality"), rare))
    return items


def _said(target: Target) -> str:
    """An answer as a text, for the conventions that read texts."""
    if target["kind"] == "options":
        return f"{target['index'] + target['first']}:{target['options'][target['index']]}"
    return target.get("text", "")


def _beats(
    ci95: tuple[float, float] | None, baseline_ci95: tuple[float, float] | None, higher_is_better: bool
) -> bool | None:
    if ci95 is None or baseline_ci95 is None:
        return None
    return ci95[0] > baseline_ci95[1] if higher_is_better else ci95[1] < baseline_ci95[0]


def write_rows(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A list of objects, one a line."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    Path(path).write_text(f"[\n{lines}\n]\n", "utf-8")


def write_scores(directory: Path, scores: Scores) -> None:
    """scores.json and breakdown.json."""
    write_rows(directory / "scores.json", scores.rows)
    write_rows(directory / "breakdown.json", scores.breakdown)
