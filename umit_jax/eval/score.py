"""predictions.jsonl -> scores.json, without the model: parse each text again, score it strictly, beside a baseline.

A prediction line is {id, task, dataset, language, text, truth} and, where known, {topic, patient_id, heldout,
synthetic, prompt, parsed, baseline, spoken}; `parsed` is never read. `spoken` is the frame of the numbers that the text
gives for 2D boxes, where it is not what the truth's frame says (Frame.spoken). A score row is

| key                | meaning                                                                                     |
| task, dataset      | scored together; so are the kind of truth, 2D or 3D, heldout and synthetic                  |
| language           | one language, or "all" (not for reports, whose metrics have no meaning across languages)    |
| metric, mode       | name of the metric, and the convention it follows ("strict")                                |
| value, ci95        | the metric and its interval over patients, null with fewer than two patients                |
| baseline, baseline_ci95 | the same of the naive baseline on the same questions, null where a line has none       |
| better             | "higher" or "lower"                                                                         |
| beats_baseline     | the two intervals do not overlap and ours is the better; null where either is missing       |
| n, n_patients      | questions, and patients among them (null where a line names none)                           |
| dims, heldout, synthetic | 2 or 3 for boxes and points; "patient" or "region"; true if no such patient exists     |
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from umit_jax.eval.bootstrap import Statistic, interval, mean
from umit_jax.eval.metrics import Item, classify, detect, landmark, report, vqa
from umit_jax.eval.parse import Reading, read_answer
from umit_jax.targets import Frame, TargetError, check_target

Prediction = dict[str, Any]
MODES = ("strict",)
_REQUIRED = {"id": str, "task": str, "dataset": str, "language": str, "text": str, "truth": dict}
_OPTIONAL = {"topic": str, "patient_id": str, "heldout": str, "synthetic": bool, "prompt": str}
_OPTIONAL |= {"baseline": dict, "spoken": dict}


class PredictionError(ValueError):
    """A predictions file that cannot be scored; the message names the file and the line."""


def read_predictions(path: str | os.PathLike[str]) -> list[Prediction]:
    """Every line of a predictions.jsonl, checked; blank lines are passed over.

    Raises PredictionError naming file and line: not JSON, a field missing or of another type, a truth or baseline
    that is no target, a sample given twice, no line at all.
    """
    predictions: list[Prediction] = []
    seen: dict[tuple[str, ...], int] = {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                prediction = _checked(json.loads(line.decode("utf-8")))
            except ValueError as error:  # JSONDecodeError, UnicodeDecodeError and TargetError are ValueErrors
                raise PredictionError(f"{path}:{number}: {error}") from error
            key = tuple(prediction[name] for name in ("dataset", "task", "language", "id"))
            if key in seen:
                raise PredictionError(f"{path}:{number}: id {prediction['id']!r} is already on line {seen[key]}")
            seen[key] = number
            predictions.append(prediction)
    if not predictions:
        raise PredictionError(f"{path}: expected at least one prediction, found none")
    return predictions


def _checked(line: Any) -> Prediction:
    if not isinstance(line, dict):
        raise ValueError(f"expected an object, found {type(line).__name__}")
    for fields, required in ((_REQUIRED, True), (_OPTIONAL, False)):
        for name, kind in fields.items():
            value = line.get(name)
            if (value is None and required) or (value is not None and not isinstance(value, kind)):
                raise ValueError(f"{name}: expected {kind.__name__}, found {value!r}")
    for name in ("truth", "baseline"):
        if line.get(name) is not None:
            try:
                check_target(line[name])
            except TargetError as error:
                raise ValueError(f"{name}: {error}") from error
    if line.get("spoken") is not None and Frame.from_json(line["spoken"]).ndim != 2:
        raise ValueError(f"spoken: expected a frame of two axes, found {line['spoken']}")
    baseline = line.get("baseline")
    if baseline is not None and _shape(baseline) != _shape(line["truth"]):
        raise ValueError(f"baseline: expected {_shape(line['truth'])}, found {_shape(baseline)}")
    return line


def _shape(target: Mapping[str, Any]) -> tuple[str, int | None]:
    """Kind of a target, and its number of axes if it has coordinates."""
    return target["kind"], len(target["frame"]["size"]) if "frame" in target else None


def with_parsed(prediction: Prediction) -> Prediction:
    """The prediction with `parsed` made from its text."""
    return {**prediction, "parsed": _read(prediction).target}


def _read(prediction: Prediction) -> Reading:
    spoken = prediction.get("spoken")
    frame = None if spoken is None else Frame.from_json(spoken)
    return read_answer(prediction["text"], prediction["truth"], prediction["language"], frame)


def score(predictions: Sequence[Prediction], *, modes: Sequence[str] = MODES) -> list[dict[str, Any]]:
    """Score rows, sorted; see the top of this file. Raises ValueError for a mode that does not exist."""
    for mode in modes:
        if mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(MODES)}, found {mode!r}")
    groups: dict[tuple[Any, ...], list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        group = (prediction["task"], prediction["dataset"], *_shape(prediction["truth"]))
        group += (prediction.get("heldout"), bool(prediction.get("synthetic")))
        for language in (prediction["language"], "all"):
            groups[(*group, language)].append(prediction)
    rows: list[dict[str, Any]] = []
    for group in sorted(groups, key=str):
        task, dataset, kind, dims, heldout, synthetic, language = group
        if language == "all" and _metrics(task, kind) is report.report:
            continue
        about = {"task": task, "dataset": dataset, "language": language, "mode": "strict"}
        about |= {"dims": dims, "heldout": heldout, "synthetic": synthetic}
        rows += [{**about, **row} for row in _score_group(groups[group], _metrics(task, kind))]
    return rows


def _metrics(task: str, kind: str) -> Callable[[Sequence[Item]], dict[str, Statistic]]:
    if kind == "options":
        return vqa.closed if task == "vqa" else classify.classification
    if kind == "text":
        return vqa.open_ended if task == "vqa" else report.report
    return detect.detection if kind == "boxes" else landmark.landmarks


def _score_group(
    predictions: Sequence[Prediction], metrics: Callable[[Sequence[Item]], dict[str, Statistic]]
) -> list[dict[str, Any]]:
    patients = [prediction.get("patient_id") for prediction in predictions]
    clusters = [("sample", i) if patient is None else ("patient", patient) for i, patient in enumerate(patients)]
    answers = [_read(prediction).target for prediction in predictions]
    ours = metrics(_items(predictions, answers))
    ours["unparsed"] = mean([answer is None for answer in answers], higher_is_better=False)
    theirs: dict[str, Statistic] = {}
    if all(prediction.get("baseline") is not None for prediction in predictions):
        theirs = metrics(_items(predictions, [prediction["baseline"] for prediction in predictions]))
    rows = []
    for name, statistic in ours.items():
        if statistic.count == 0:
            continue
        against = theirs.get(name)
        ci95 = interval(statistic, clusters)
        baseline_ci95 = interval(against, clusters) if against else None
        row = {
            "metric": name,
            "value": statistic.point,
            "ci95": ci95 and list(ci95),
            "baseline": against.point if against else None,
            "baseline_ci95": baseline_ci95 and list(baseline_ci95),
            "better": "higher" if statistic.higher_is_better else "lower",
            "beats_baseline": _beats(ci95, baseline_ci95, statistic.higher_is_better),
            "n": statistic.count,
            "n_patients": None if None in patients else len(set(patients)),
        }
        rows.append(row)
    return rows


def _items(predictions: Sequence[Prediction], answers: Iterable[Any]) -> list[Item]:
    return [
        Item(prediction["truth"], answer, prediction["language"], prediction.get("topic"))
        for prediction, answer in zip(predictions, answers, strict=True)
    ]


def _beats(
    ci95: tuple[float, float] | None, baseline_ci95: tuple[float, float] | None, higher_is_better: bool
) -> bool | None:
    if ci95 is None or baseline_ci95 is None:
        return None
    return ci95[0] > baseline_ci95[1] if higher_is_better else ci95[1] < baseline_ci95[0]


def refused(predictions: Iterable[Prediction]) -> dict[str, dict[str, int]]:
    """What parsing refused, counted: {task: {reason: how often}}."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for prediction in predictions:
        for problem in _read(prediction).problems:
            counts[prediction["task"]][problem] += 1
    return {task: dict(reasons) for task, reasons in counts.items()}


def write_scores(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Written beside and renamed: a reader never sees half a file."""
    aside = Path(path).with_name(Path(path).name + ".tmp")
    aside.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n", "utf-8")
    os.replace(aside, path)


def write_predictions(path: str | os.PathLike[str], predictions: Iterable[Prediction]) -> None:
    """One line a prediction; written beside and renamed."""
    aside = Path(path).with_name(Path(path).name + ".tmp")
    with open(aside, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(prediction, ensure_ascii=False) + "\n" for prediction in predictions)
    os.replace(aside, path)
