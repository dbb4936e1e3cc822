"""Judged predictions -> what the page's browser reads: columns for filters, and chunks of details that it parses late.

Nothing that could name a patient is in it: an example is known by its line in predictions.jsonl. Its id is shown only
where it cannot carry the patient's, because the patient does not exist or the id is a line of a label file.
"""

import re
from collections.abc import Sequence
from typing import Any

from umit_jax.eval.normalise import fold
from umit_jax.eval.report_html.judge import Judged
from umit_jax.eval.report_html.pictures import Picture, Pictures
from umit_jax.targets import Frame, Target, TargetError, convert_target

CHUNK = 500
_LINE_ID = re.compile(r"[^/]*/line_\d+")
_COORDINATES = {"boxes": "box", "points": "point"}
_MEDIA = re.compile(r"<media>")


def columns(examples: Sequence[Judged]) -> dict[str, Any]:
    """Every column of the list: numbers as they are, words as positions in a list of the words."""
    table: dict[str, Any] = {"number": [e.number for e in examples], "value": [_rounded(e.value) for e in examples]}
    for name in ("task", "dataset", "language"):
        table[name] = _coded([e.prediction[name] for e in examples])
    table["verdict"] = _coded([e.verdict for e in examples])
    table["measure"] = _coded([e.measure for e in examples])
    return table


def _coded(words: Sequence[str]) -> dict[str, Any]:
    names = {word: i for i, word in enumerate(dict.fromkeys(words))}
    return {"words": list(names), "codes": [names[word] for word in words]}


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)


def chunks(examples: Sequence[Judged], pictures: Pictures) -> list[list[dict[str, Any]]]:
    """Details of the examples in the same order, CHUNK of them in a list."""
    details = [_detail(example, pictures) for example in examples]
    return [details[i : i + CHUNK] for i in range(0, len(details), CHUNK)]


def shown_id(example: Judged) -> str:
    line = example.prediction
    return line["id"] if line.get("synthetic") or _LINE_ID.fullmatch(line["id"]) else ""


def _detail(example: Judged, pictures: Pictures) -> dict[str, Any]:
    line, truth, answer = example.prediction, example.prediction["truth"], example.answer
    shown = pictures.of(line)
    place = _place(truth, shown)
    detail = {
        "id": shown_id(example),
        "topic": line.get("topic") or "",
        "modality": line.get("modality") or "",
        "synthetic": bool(line.get("synthetic")),
        "prompt": _MEDIA.sub("", line.get("prompt") or "").strip(),
        "text": line["text"],
        "problems": list(example.problems),
        "kind": truth["kind"],
        "pictures": [_picture(picture) for picture in shown],
        "images": len(line.get("images") or ()) if "images" in line else 1,
    }
    if truth["kind"] == "options":
        detail |= {"options": truth["options"], "first": truth["first"], "truth": truth["index"]}
        detail |= {"said": answer["index"] if answer else None, "scores": line.get("scores")}
    elif truth["kind"] == "text":
        detail["truth"] = truth["text"]
    else:
        detail |= {"frame": truth["frame"], "place": place, "items": _items(truth, answer, line.get("scores"))}
        if place is not None:
            display = shown[place].display
            detail |= {"truth": _drawn(truth, display), "said": _drawn(answer, display) if answer else []}
    return detail


def _picture(picture: Picture) -> dict[str, Any]:
    found = {"file": picture.file, "kind": picture.kind, "modality": picture.modality, "window": picture.window}
    found |= {"size": list(picture.size), "view": [round(side, 3) for side in picture.display.size]}
    if picture.kind == "volume":
        found |= {"columns": picture.columns, "cell": list(picture.cell), "gap": picture.gap}
    return found


def _place(truth: Target, shown: Sequence[Picture]) -> int | None:
    """Which of the pictures a truth's coordinates are of: the one whose size its frame names, else the first with as
    many axes. None: nothing to draw on."""
    if truth["kind"] not in _COORDINATES:
        return None
    size = tuple(truth["frame"]["size"])
    fitting = [i for i, picture in enumerate(shown) if len(picture.size) == len(size)]
    named = [i for i in fitting if tuple(shown[i].size) == size]
    return next(iter(named or fitting), None)


def _drawn(target: Target, display: Frame) -> list[dict[str, Any]]:
    """Boxes and points in the units of the picture as displayed."""
    key = _COORDINATES[target["kind"]]
    try:
        items = convert_target(target, display)["items"]
    except TargetError:
        return []
    return [{"label": item["label"], key: [round(c, 3) for c in item[key]]} for item in items]


def _items(truth: Target, answer: Target | None, scores: Sequence[float] | None) -> list[dict[str, Any]]:
    """One row for each label: true and said numbers in the truth's own frame, for who reads the picture as text."""
    key = _COORDINATES[truth["kind"]]
    rows: dict[str, dict[str, Any]] = {}
    for side, target in (("truth", truth), ("said", answer)):
        for i, item in enumerate(target["items"] if target else []):
            row = rows.setdefault(fold(item["label"]), {"label": item["label"], "truth": [], "said": [], "scores": []})
            row[side].append([round(c, 2) for c in item[key]])
            if side == "said" and scores is not None:
                row["scores"].append(_rounded(scores[i]))
    return list(rows.values())
