"""The answer side: a structured target as the text a model says.

| target                    | text                                                                     |
| options                   | `1:yes`, in Chinese `1：是`; the number is index + first                   |
| boxes, two axes           | object_ref_start name object_ref_end box_start (x1,y1),(x2,y2) box_end tokens, 0-1000 |
| the same, frame "resized" | a fenced JSON list of {"bbox_2d": [x1, y1, x2, y2], "label": name}, in that frame |
| boxes, three axes         | `[(x1,y1,z1),(x2,y2,z2)]` in the target's frame                          |
| points                    | `[x,y]` or `[x,y,z]` in the target's frame                               |
| no boxes                  | `none`, in Chinese `无`; in the frame "resized" `[]`, fenced |
| text                      | as it is                                                                 |

Coordinates are whole units. Several boxes stand one after another. Formats: UMIT (arXiv 2503.15892), figures; for 2D
boxes the Qwen2-VL model card and, in pixels of the resized image, Qwen2.5-VL's cookbook on spatial understanding. The
frame says which of the two, here and in umit_jax/eval/parse.py; data_pipelines/spoken.py gives a target the right one.
"""

import json
from collections.abc import Sequence

from umit_jax.targets import Frame, Target, check_target, convert

_COLON = {"en": ":", "zh": "："}
_NOTHING = {"en": "none", "zh": "无"}
_KINDS = {
    "vqa": ("options", "text"),
    "classification": ("options",),
    "detection": ("boxes",),
    "landmark": ("points",),
    "report": ("text",),
    "caption": ("text",),
    "comparison": ("text",),
}


class AnswerError(ValueError):
    """A target that the task does not answer with; the message names both."""


def options_text(options: Sequence[str], first: int, language: str) -> str:
    """Options as a question lists them: `1:yes` a line each, with a full-width colon in Chinese."""
    return "\n".join(f"{i + first}{_COLON[language]}{option}" for i, option in enumerate(options))


def answer_text(target: Target, *, task: str, language: str) -> str:
    """The text that answers `task` with `target`. Raises AnswerError or TargetError when the two do not fit."""
    kind = check_target(target)["kind"]
    if kind not in _KINDS.get(task, ()):
        raise AnswerError(f"task {task!r} is not answered with {kind!r}")
    if language not in _COLON:
        raise AnswerError(f"language: expected en or zh, found {language!r}")
    if kind == "options":
        return f"{target['index'] + target['first']}{_COLON[language]}{target['options'][target['index']]}"
    if kind == "text":
        return target["text"]
    frame = Frame.from_json(target["frame"])
    if kind == "points":
        if len(target["items"]) != 1:
            raise AnswerError(f"a landmark question has one point, found {len(target['items'])}")
        return "[" + ",".join(str(c) for c in _whole(target["items"][0]["point"], frame)) + "]"
    spoken = frame.spoken()
    boxes = [(item["label"], whole_box(item["box"], frame, spoken)) for item in target["items"]]
    if spoken.name == "resized" and spoken.ndim == 2:
        return _json_text(boxes)
    return "".join(_box_text(label, corners) for label, corners in boxes) or _NOTHING[language]


def whole_box(box: Sequence[float], frame: Frame, spoken: Frame) -> list[int]:
    """A box in whole units of the frame `spoken`, each side within half a unit. Only a box thinner than one unit,
    which rounding would close, is opened to one unit."""
    n = frame.ndim
    corners = _whole(convert(box, frame, spoken), spoken)
    for axis in range(n):
        if corners[axis] == corners[axis + n]:
            if corners[axis + n] < spoken.size[axis]:
                corners[axis + n] += 1
            else:
                corners[axis] -= 1
    return corners


def _whole(coords: Sequence[float], frame: Frame) -> list[int]:
    return [min(max(int(c + 0.5), 0), int(frame.size[i % frame.ndim])) for i, c in enumerate(coords)]


def _box_text(label: str, corners: list[int]) -> str:
    near, far = (
        ",".join(str(c) for c in half) for half in (corners[: len(corners) // 2], corners[len(corners) // 2 :])
    )
    if len(corners) == 6:
        return f"[({near}),({far})]"
    return f"<|object_ref_start|>{label}<|object_ref_end|><|box_start|>({near}),({far})<|box_end|>"


def _json_text(boxes: Sequence[tuple[str, list[int]]]) -> str:
    lines = [f"\t{json.dumps({'bbox_2d': corners, 'label': label}, ensure_ascii=False)}" for label, corners in boxes]
    return "```json\n[\n" + ",\n".join(lines) + "\n]\n```" if lines else "```json\n[]\n```"
