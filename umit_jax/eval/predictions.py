"""predictions.jsonl: one line a question, checked when it is read, so that a score never rests on a broken line.

A line is {id, task, dataset, language, text, truth} and, where known, {topic, patient_id, heldout, synthetic, prompt,
parsed, baseline, spoken, modality, scores, rare_words, images, config_hash, seed}; `parsed` is never read, other
keys are kept and passed over.

| key        | is                                                                                                |
| spoken     | frame of the numbers of 2D boxes in the text, where it is not what the truth's frame says         |
| modality   | DICOM's code of what was shown ("CT"; several joined by "+")                                      |
| scores     | probability of each option, or confidence of each box that the text gives, in its order           |
| variant    | how the question was changed (data_pipelines/robustness.py); absent where it was not               |
| run        | hash of what the answers depend on: weights, records, settings                                    |
| rare_words | words of a report's truth that hardly occur in the training reports (metrics/r2gen.py)            |
| images     | SHA-256 of the encoded frames of each image or volume that was shown                              |
| config_hash, seed | of the settings that the answers depend on                                                 |
"""

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from umit_jax.eval.parse import Reading, read_answer
from umit_jax.targets import Frame, TargetError, check_target

Prediction = dict[str, Any]
_REQUIRED = {"id": str, "task": str, "dataset": str, "language": str, "text": str, "truth": dict}
_OPTIONAL = {"topic": str, "patient_id": str, "heldout": str, "synthetic": bool, "prompt": str, "modality": str}
_OPTIONAL |= {"baseline": dict, "spoken": dict, "scores": list, "rare_words": list, "images": list}
_SUM_TOLERANCE = 0.01  # probabilities written with few digits


class PredictionError(ValueError):
    """A predictions file that cannot be scored; the message names the file and the line."""


def read_predictions(path: str | os.PathLike[str]) -> list[Prediction]:
    """Every line of a predictions.jsonl, checked; blank lines are passed over.

    Raises PredictionError naming file and line: not JSON, a field missing or of another type, a truth or baseline
    that is no target, scores that fit no option or box, a sample given twice, no line at all.
    """
    predictions: list[Prediction] = []
    seen: dict[tuple[str, ...], int] = {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                prediction = _checked(json.loads(line.decode("utf-8")))
            except json.JSONDecodeError as error:
                raise PredictionError(f"{path}:{number}: not JSON, or cut off: {error}") from error
            except ValueError as error:  # UnicodeDecodeError and TargetError are ValueErrors
                raise PredictionError(f"{path}:{number}: {error}") from error
            key = identity(prediction)
            if key in seen:
                raise PredictionError(f"{path}:{number}: id {prediction['id']!r} is already on line {seen[key]}")
            seen[key] = number
            predictions.append(prediction)
    if not predictions:
        raise PredictionError(f"{path}: expected at least one prediction, found none")
    return predictions


def read_variants(main: Path, predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """The same questions asked in other ways, by name: the predictions.NAME.jsonl beside predictions.jsonl. Raises
    PredictionError where one is not of the same run."""
    found: dict[str, list[Prediction]] = {}
    for path in sorted(main.parent.glob(f"{main.stem}.*.jsonl")):
        read_ = read_predictions(path)
        name, run = read_[0].get("variant"), predictions[0].get("run")
        if not isinstance(name, str) or any(p.get("variant") != name or p.get("run") != run for p in read_):
            raise PredictionError(f"{path}: not of the run that wrote {main}: remove it, or evaluate again")
        found[name] = read_
    return found


def identity(prediction: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells one question from all others of a file."""
    return tuple(prediction[name] for name in ("dataset", "task", "language", "id"))


def shape(target: Mapping[str, Any]) -> tuple[str, int | None]:
    """Kind of a target, and its number of axes if it has coordinates."""
    return target["kind"], len(target["frame"]["size"]) if "frame" in target else None


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
    if baseline is not None and shape(baseline) != shape(line["truth"]):
        raise ValueError(f"baseline: expected {shape(line['truth'])}, found {shape(baseline)}")
    for name in ("rare_words", "images"):
        if not all(isinstance(word, str) for word in line.get(name) or ()):
            raise ValueError(f"{name}: expected a list of strings, found {line[name]!r}")
    if line.get("scores") is not None:
        _check_scores(line)
    return line


def _check_scores(line: Prediction) -> None:
    scores, truth = line["scores"], line["truth"]
    if not all(type(score) in (int, float) and math.isfinite(score) for score in scores):
        raise ValueError(f"scores: expected finite numbers, found {scores!r}")
    if truth["kind"] == "options":
        if len(scores) != len(truth["options"]):
            raise ValueError(f"scores: expected one for each of {len(truth['options'])} options, found {len(scores)}")
        if min(scores) < 0 or abs(sum(scores) - 1) > _SUM_TOLERANCE:
            raise ValueError(f"scores: expected probabilities that sum to 1, found {scores!r}")
    elif truth["kind"] == "boxes":
        answer = read(line).target
        count = len(answer["items"]) if answer else 0
        if len(scores) != count:
            raise ValueError(f"scores: expected one for each of the {count} boxes of the text, found {len(scores)}")
    else:
        raise ValueError(f"scores: expected none for a truth of kind {truth['kind']!r}, found {scores!r}")


def read(prediction: Mapping[str, Any]) -> Reading:
    """The answer that the prediction's text gives, and what was refused in it."""
    spoken = prediction.get("spoken")
    frame = None if spoken is None else Frame.from_json(spoken)
    return read_answer(prediction["text"], prediction["truth"], prediction["language"], frame)


def refused(predictions: Iterable[Prediction]) -> dict[str, dict[str, int]]:
    """What parsing refused, counted: {task: {reason: how often}}."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for prediction in predictions:
        for problem in read(prediction).problems:
            counts[prediction["task"]][problem] += 1
    return {task: dict(reasons) for task, reasons in counts.items()}
