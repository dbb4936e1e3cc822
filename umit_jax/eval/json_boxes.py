"""Boxes spoken as JSON, Qwen2.5-VL's way: `[{"bbox_2d": [x1, y1, x2, y2], "label": "liver"}]`.

Read wherever they stand: fenced or bare, one object or several, in a list or not, with words around them, cut off at
the end. An object that is no JSON because of its quotes ('bbox_2d') is read too; numbers are never guessed.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from umit_jax.eval.normalise import fold
from umit_jax.targets import is_number

_KEY = "bbox_2d"
_OBJECT = re.compile(r"\{[^{}]*\}")
_LOOSE_BOX = re.compile(rf"[\"']?{_KEY}[\"']?\s*:\s*\[([^\[\]]*)\]")
_LOOSE_LABEL = re.compile(r"""[\"']?label[\"']?\s*:\s*(?:"([^"]*)"|'([^']*)')""")
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


@dataclasses.dataclass
class JsonBoxes:
    """boxes: label ("" where the object has none) and four numbers of each, in the order of the text. problems: a
    phrase for each object that is no box."""

    boxes: list[tuple[str, tuple[float, ...]]]
    problems: list[str]

    def named(self, asked: Sequence[str], unnamed: str) -> list[tuple[str, tuple[float, ...]]]:
        """The boxes under the spelling of the labels asked about, others under their own. Without a label: that of the
        box before, else the only one asked about, else `unnamed`."""
        spelled = {fold(label): label for label in asked}
        last = next(iter(spelled.values())) if len(spelled) == 1 else unnamed
        named = []
        for label, values in self.boxes:
            last = spelled.get(fold(label), fold(label)) if label else last
            named.append((last, values))
        return named


def json_boxes(text: str) -> JsonBoxes | None:
    """Every object with a "bbox_2d" in a text, or None where there is none."""
    if _KEY not in text or "{" not in text:
        return None
    found, end = JsonBoxes([], []), 0
    decoder = json.JSONDecoder()
    while (start := text.find("{", end)) >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):  # no JSON, an integer too long to be one, nested too deeply
            loose = _OBJECT.match(text, start)
            value, end = (_loose(loose[0]), loose.end()) if loose else (None, start + 1)
        if isinstance(value, dict) and _KEY in value:
            _add(found, value)
        else:
            end = start + 1  # a box may stand inside
    missing = text.count(_KEY) - len(found.boxes) - len(found.problems)
    found.problems += ["half a box"] * max(missing, 0)
    return found


def _loose(text: str) -> dict[str, Any] | None:
    box, label = _LOOSE_BOX.search(text), _LOOSE_LABEL.search(text)
    if box is None:
        return None
    numbers = box[1].split(",")
    whole = all(_NUMBER.fullmatch(number.strip()) for number in numbers)
    return {_KEY: [float(n) for n in numbers] if whole else None, "label": (label[1] or label[2]) if label else None}


def _add(found: JsonBoxes, value: dict[str, Any]) -> None:
    box, label = value[_KEY], value.get("label")
    if not isinstance(box, list) or not all(map(is_number, box)):
        found.problems.append("box without numbers")
    elif len(box) != 4:
        found.problems.append("wrong number of coordinates")
    else:
        found.boxes.append((label if isinstance(label, str) else "", tuple(float(n) for n in box)))
