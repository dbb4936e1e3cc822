"""predictions.jsonl: one line a question, checked when it is read, so that a score never rests on a broken line.

A line is {id, task, dataset, language, text, truth} and, where known, {topic, patient_id, heldout, synthetic, prompt,
parsed, baseline, spoken, modality, scores, rare_words, images, variant, run, config_hash, seed}; `parsed` is never
read. A key that is none of these is refused: a misspelt patient_id would make every line a patient of its own.

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

import difflib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from umit_jax.batch import TASKS
from umit_jax.eval.parse import Reading, read_answer
from umit_jax.targets import LANGUAGES, Frame, TargetError, check_target, is_number

Prediction = dict[str, Any]
_REQUIRED = {"id": str, "task": str, "dataset": str, "language": str, "text": str, "truth": dict}
_OPTIONAL = {"topic": str, "patient_id": str, "heldout": str, "synthetic": bool, "prompt": str, "modality": str}
_OPTIONAL |= {"baseline": dict, "spoken": dict, "scores": list, "rare_words": list, "images": list}
_OPTIONAL |= {"variant": str, "run": str, "config_hash": str, "seed": int}
_NEVER_READ = ("parsed",)
_KNOWN = (*_REQUIRED, *_OPTIONAL, *_NEVER_READ)
_ALLOWED = {"task": TASKS, "language": LANGUAGES, "heldout": ("patient", "region")}
# What `umit eval --robustness` writes beside the main file (data_pipelines/robustness.py has the names).
_VARIANT = re.compile(r"(?:blank|swap|options|negated|flip|corrupt_\w+_[1-5])\.(?:jsonl|left_out\.json)")
_SUM_TOLERANCE = 0.01  # probabilities written with few digits


class PredictionError(ValueError):
    """A predictions file that cannot be scored; the message names the file and the line."""


def read_predictions(path: str | os.PathLike[str]) -> list[Prediction]:
    """Every line of a predictions.jsonl, checked; blank lines are passed over.

    Raises PredictionError naming file and line: not JSON, a field missing, unknown, of another type or with a value
    that it cannot have, a truth or baseline that is no target, scores that fit no option or box, a sample given twice,
    no line at all.
    """
    predictions: list[Prediction] = []
    seen: dict[tuple[str, ...], int] = {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                prediction = _checked(json.loads(line.decode("utf-8")), escapes=b"\\u" in line)
            except RecursionError as error:
                raise PredictionError(f"{path}:{number}: nested too deeply") from error
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


def variant_path(main: Path, name: str) -> Path:
    """Where the same questions asked in another way are, beside predictions.jsonl."""
    return main.with_name(f"{main.stem}.{name.replace(':', '_')}.jsonl")


def variant_files(main: Path) -> tuple[list[Path], list[Path]]:
    """(files beside predictions.jsonl that `umit eval` writes for other ways of asking, other predictions.*.jsonl)."""
    beside = sorted(path for path in main.parent.iterdir() if path.name.startswith(f"{main.stem}."))
    own = [path for path in beside if _VARIANT.fullmatch(path.name, len(main.stem) + 1)]
    return own, [path for path in beside if path.suffix == ".jsonl" and path not in (*own, main)]


def read_variants(main: Path, predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """The same questions asked in other ways, by name: the predictions.NAME.jsonl beside predictions.jsonl. Raises
    PredictionError where one is not of the same run."""
    found: dict[str, list[Prediction]] = {}
    for path in variant_files(main)[0]:
        if path.suffix != ".jsonl":
            continue
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


def _checked(line: Any, *, escapes: bool) -> Prediction:
    """escapes: whether the line has any \\u, without which no half of a character can be in it."""
    if not isinstance(line, dict):
        raise ValueError(f"expected an object, found {type(line).__name__}")
    for name in line:
        if name not in _KNOWN:
            close = difflib.get_close_matches(name, _KNOWN, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(_KNOWN)}"
            raise ValueError(f"{name!r}: unknown field ({hint})")
    for fields, required in ((_REQUIRED, True), (_OPTIONAL, False)):
        for name, kind in fields.items():
            value = line.get(name)
            right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
            if not right and (value is not None or required):
                raise ValueError(f"{name}: expected {kind.__name__}, found {value!r}")
    for name, allowed in _ALLOWED.items():
        if line.get(name) is not None and line[name] not in allowed:
            raise ValueError(f"{name}: expected one of {', '.join(allowed)}, found {line[name]!r}")
    for name, value in line.items() if escapes else ():
        if name not in ("text", *_NEVER_READ):  # whatever the model said is scored; the rest names things in files
            try:
                json.dumps(value, ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"{name}: half of a character, which no file can hold, in {value!r}") from error
    for name in ("truth", "baseline"):
        if line.get(name) is not None:
            try:
                check_target(line[name])
            except TargetError as error:
                raise ValueError(f"{name}: {error}") from error
    if line.get("spoken") is not None:
        try:
            axes = Frame.from_json(line["spoken"]).ndim
        except TargetError as error:
            raise ValueError(f"spoken: {error}") from error
        if axes != 2:
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
    if not all(map(is_number, scores)):
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
