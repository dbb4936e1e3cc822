"""Boxes and points in somebody's training rows -> a target, and the answer's text with them in our format.

ms-swift's `objects`: ref names what is meant, bbox holds [x1, y1, x2, y2] or [x, y], bbox_type says in what: "real",
pixels of the image, or "norm1", fractions of it; image_id says of which image. In the turns `<ref-object>` and `<bbox>`
stand for the next of each; a box belongs to the name before it. An answer may also have Qwen2-VL's own box tokens,
whose numbers are 0-1000.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.prompts import answer_text
from data_pipelines.record import BOX, Media, Turn, boxes_are_right
from data_pipelines.sources.make import OUTSIDE, RowError, numbers
from umit_jax.targets import Frame, Target, TargetError, boxes_target, points_target

_HOLE = re.compile(r"<ref-object>|<bbox>")
_NAMED = re.compile(rf"(?:<\|object_ref_start\|>(.*?)<\|object_ref_end\|>)?\s*{BOX.pattern}", re.DOTALL)
_NAMELESS = "object"


def placed(
    turns: Sequence[Turn], objects: Mapping[str, Any], media: Sequence[Media]
) -> tuple[tuple[Turn, ...], Target | None]:
    """(turns without holes, target of the last answer's boxes or points, None where it has none). Raises RowError."""
    if not all(boxes_are_right(turn.text) for turn in turns[:-1]):
        raise RowError(OUTSIDE)
    refs, shapes = objects.get("ref") or [], objects.get("bbox") or []
    if not isinstance(refs, list) or not isinstance(shapes, list) or not all(isinstance(r, str) and r for r in refs):
        raise RowError("objects are no lists of names and boxes")
    if not refs and not shapes and not any(_HOLE.search(turn.text) for turn in turns):
        return tuple(turns), spoken(turns[-1].text)
    images = objects.get("image_id") or [0] * len(shapes)
    known = isinstance(images, list) and all(type(i) is int and 0 <= i < len(media) for i in images)
    if not known or len(images) != len(shapes):
        raise RowError("image_id of the objects fits no image")
    kind = objects.get("bbox_type") or "real"
    if kind not in ("real", "norm1"):
        raise RowError("unknown bbox_type")
    boxes = [_in_pixels(shape, media[i], kind) for shape, i in zip(shapes, images, strict=True)]
    filled, last = _fill(turns, list(refs), boxes)
    used = {images[i] for i, _ in last}
    if len(used) > 1:
        raise RowError("boxes in several images")
    if not last:
        return filled, None
    frame = Frame("raw", tuple(float(n) for n in media[used.pop()].size))
    return filled, _target(frame, [(name, boxes[i]) for i, name in last])


def _in_pixels(shape: Any, media: Media, kind: str) -> list[float]:
    scale = media.size if kind == "norm1" else (1, 1)
    pixels = [float(n * scale[i % 2]) for i, n in enumerate(numbers(shape, (2, 4)))]
    _target(Frame("raw", tuple(float(n) for n in media.size)), [(_NAMELESS, pixels)])  # refuses what lies outside
    return pixels


def _target(frame: Frame, items: Sequence[tuple[str, list[float]]]) -> Target:
    lengths = {len(shape) for _, shape in items}
    if len(lengths) > 1:
        raise RowError("boxes and points in one answer")
    try:
        return (boxes_target if lengths == {4} else points_target)(frame, items)
    except TargetError:
        raise RowError(OUTSIDE) from None


def _fill(
    turns: Sequence[Turn], refs: list[str], boxes: Sequence[list[float]]
) -> tuple[tuple[Turn, ...], list[tuple[int, str]]]:
    """(turns with names for their holes, [(box, name)] of the last turn). The last answer is spoken anew where it is
    nothing but holes, otherwise its boxes have to be."""
    filled, name, at, last = [], "", 0, []
    holes = any("<ref-object>" in turn.text for turn in turns)
    names = refs if len(refs) == len(boxes) and not holes else []  # one each, without holes for them
    for number, turn in enumerate(turns):
        text, end, final = "", 0, number == len(turns) - 1
        for hole in _HOLE.finditer(turn.text):
            text, end = text + turn.text[end : hole.start()], hole.end()
            if hole[0] == "<ref-object>":
                if not refs:
                    raise RowError("more holes than objects")
                name = refs.pop(0)
                text += "" if final else name
                continue
            if at == len(boxes):
                raise RowError("more holes than objects")
            if not final:
                raise RowError("box outside the last answer")
            last.append((at, names[at] if names else name or (refs[0] if refs else _NAMELESS)))
            at += 1
        filled.append(dataclasses.replace(turn, text=text + turn.text[end:]))
    if at < len(boxes):
        raise RowError("more objects than holes")
    if last and filled[-1].text.strip(" ,;\n、，。."):
        raise RowError("words between the boxes of an answer")
    return tuple(filled), last


def spoken(answer: str) -> Target | None:
    """The boxes of an answer in Qwen2-VL's tokens, 0-1000; None where it has none. Raises RowError."""
    if "<|box_start|>" not in answer:
        return None
    found = list(_NAMED.finditer(answer))
    if not found or _NAMED.sub("", answer).strip(" ,;\n"):
        raise RowError("boxes of the answer cannot be read")
    name, items = _NAMELESS, []
    for match in found:
        name = (match[1] or "").strip() or name
        items.append((name, [float(n) for n in match.groups()[1:]]))
    return _target(Frame("norm1000", (1000.0, 1000.0)), items)


def said_anew(turns: Sequence[Turn], target: Target, task: str, language: str) -> tuple[Turn, ...]:
    """The turns with the target for the last answer."""
    return (*turns[:-1], Turn("assistant", answer_text(target, task=task, language=language)))
