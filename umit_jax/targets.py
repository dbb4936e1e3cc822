"""Structured answers and the coordinate frames their numbers live in, shared by data and evaluation.

A target is a plain dict, spelled the same in a Record, in a prediction's `truth` and in its `parsed`:

| kind    | keys                                                               |
| options | options [str], index (position in options), first (number spoken for position 0: 0 or 1) |
| boxes   | frame, items [{label, box [x1, y1, x2, y2] or [x1, y1, z1, x2, y2, z2]}], half-open      |
| points  | frame, items [{label, point [x, y] or [x, y, z]}]                   |
| text    | text                                                               |

A coordinate never travels without its frame: {name, size, mm_per_unit}. Two frames of the same image differ only
by scale, so a conversion is one ratio per axis.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FRAME_NAMES = ("raw", "resized", "norm1000", "voxel", "mm")
LANGUAGES = ("en", "zh")
LARGEST = 1e9  # no size, coordinate or spacing of an image comes near it

Target = dict[str, Any]


class TargetError(ValueError):
    """A target or frame that is not well formed; the message names the field."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """Units in which coordinates of one image or volume are given.

    name: one of FRAME_NAMES. size: extent of the image in units, (w, h) or (w, h, d).
    mm_per_unit: millimetres per unit along each axis, or None where the spacing is unknown.
    """

    name: str
    size: tuple[float, ...]
    mm_per_unit: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.name not in FRAME_NAMES:
            raise TargetError(f"frame.name: expected one of {', '.join(FRAME_NAMES)}, found {self.name!r}")
        if len(self.size) not in (2, 3) or not all(is_number(n) and n > 0 for n in self.size):
            raise TargetError(f"frame.size: expected two or three positive numbers, found {self.size}")
        mm = self.mm_per_unit
        if mm is not None and (len(mm) != len(self.size) or not all(is_number(n) and n > 0 for n in mm)):
            raise TargetError(
                f"frame.mm_per_unit: expected {len(self.size)} positive numbers or null, found {self.mm_per_unit}"
            )

    @property
    def ndim(self) -> int:
        return len(self.size)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "size": list(self.size),
            "mm_per_unit": None if self.mm_per_unit is None else list(self.mm_per_unit),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Frame":
        try:
            mm = value.get("mm_per_unit")
            return cls(value["name"], tuple(value["size"]), None if mm is None else tuple(mm))
        except (KeyError, TypeError, AttributeError) as error:
            raise TargetError(f"frame: expected name, size and mm_per_unit, found {value!r}") from error

    def rescaled(self, name: str, size: Sequence[float]) -> "Frame":
        """The frame of the same image with another name and extent; mm_per_unit follows."""
        if len(size) != self.ndim:
            raise TargetError(f"frame.size: expected {self.ndim} axes, found {tuple(size)}")
        mm = self.mm_per_unit
        if mm is not None:
            mm = tuple(m * old / new for m, old, new in zip(mm, self.size, size, strict=True))
        return Frame(name, tuple(size), mm)

    def norm1000(self) -> "Frame":
        """The 0-1000 frame of the same image (Qwen2-VL's box convention)."""
        return self.rescaled("norm1000", (1000,) * self.ndim)

    def spoken(self) -> "Frame":
        """The frame whose numbers stand in the text of a boxes target in this one: 0-1000 for two axes, unless it is
        that of the resized image, which Qwen2.5-VL speaks as it is; three axes always as they are."""
        return self if self.ndim == 3 or self.name == "resized" else self.norm1000()


def is_number(value: Any) -> bool:
    """Whether it is a number within LARGEST: not true or false, not NaN, not infinite."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and bool(abs(value) <= LARGEST)


def convert(coords: Sequence[float], source: Frame, to: Frame) -> list[float]:
    """Coordinates (one point, or a box as two corners) of one image from frame `source` to frame `to`."""
    if source.ndim != to.ndim or len(coords) % source.ndim:
        raise TargetError(f"cannot convert {len(coords)} coordinates from {source.ndim} axes to {to.ndim} axes")
    if source.size == to.size:
        return list(coords)
    # Multiplied first: the far edge of an image of whole pixels stays its far edge, never a rounding beyond it.
    return [c * to.size[i % to.ndim] / source.size[i % to.ndim] for i, c in enumerate(coords)]


def convert_target(target: Target, to: Frame) -> Target:
    """A boxes or points target in another frame of the same image; other kinds are returned unchanged."""
    key = {"boxes": "box", "points": "point"}.get(target["kind"])
    if key is None:
        return target
    source = Frame.from_json(target["frame"])
    items = [{**item, key: convert(item[key], source, to)} for item in target["items"]]
    return {**target, "frame": to.to_json(), "items": items}


def options_target(options: Sequence[str], index: int, first: int) -> Target:
    return check_target({"kind": "options", "options": list(options), "index": index, "first": first})


def boxes_target(frame: Frame, items: Sequence[tuple[str, Sequence[float]]]) -> Target:
    boxes = [{"label": label, "box": [float(c) for c in box]} for label, box in items]
    return check_target({"kind": "boxes", "frame": frame.to_json(), "items": boxes})


def points_target(frame: Frame, items: Sequence[tuple[str, Sequence[float]]]) -> Target:
    points = [{"label": label, "point": [float(c) for c in point]} for label, point in items]
    return check_target({"kind": "points", "frame": frame.to_json(), "items": points})


def text_target(text: str) -> Target:
    return check_target({"kind": "text", "text": text})


def check_target(target: Target) -> Target:
    """Returns the target, or raises TargetError naming the first field that is wrong.

    A box must have each far corner beyond its near one and lie in its image; a point must lie in its image.
    """
    kind = target.get("kind") if isinstance(target, dict) else None
    if kind == "options":
        _check_options(target)
    elif kind in ("boxes", "points"):
        _check_coordinates(target, "box" if kind == "boxes" else "point")
    elif kind == "text":
        if not isinstance(target.get("text"), str):
            raise TargetError(f"target.text: expected a string, found {target.get('text')!r}")
    else:
        raise TargetError(f"target.kind: expected options, boxes, points or text, found {kind!r}")
    return target


def _check_options(target: Target) -> None:
    options, index, first = target.get("options"), target.get("index"), target.get("first")
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(o, str) and o for o in options):
        raise TargetError(f"target.options: expected at least two non-empty strings, found {options!r}")
    if len(set(options)) != len(options):
        raise TargetError(f"target.options: repeated option in {options!r}")
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(options):
        raise TargetError(f"target.index: expected a position in 0..{len(options) - 1}, found {index!r}")
    if isinstance(first, bool) or not isinstance(first, int) or first not in (0, 1):
        raise TargetError(f"target.first: expected 0 or 1, found {first!r}")


def _check_coordinates(target: Target, key: str) -> None:
    frame = Frame.from_json(target.get("frame") or {})
    if not isinstance(target.get("items"), list):
        raise TargetError(f"target.items: expected a list, found {target.get('items')!r}")
    for item in target["items"]:
        coords, label = (item.get(key), item.get("label")) if isinstance(item, dict) else (None, None)
        corners = 2 if key == "box" else 1
        if not isinstance(label, str) or not label:
            raise TargetError(f"target.items: expected a label, found {item!r}")
        if not isinstance(coords, list) or len(coords) != corners * frame.ndim:
            raise TargetError(
                f"target.items: {key} of {label!r}: expected {corners * frame.ndim} numbers, found {coords!r}"
            )
        if not all(map(is_number, coords)):
            raise TargetError(f"target.items: {key} of {label!r}: expected finite numbers, found {coords!r}")
        low, high = coords[: frame.ndim], coords[-frame.ndim :]
        if corners == 2 and any(b <= a for a, b in zip(low, high, strict=True)):
            raise TargetError(f"target.items: box of {label!r} is empty or inverted: {coords}")
        if min(low) < 0 or any(c > s for c, s in zip(high, frame.size, strict=True)):
            raise TargetError(f"target.items: {key} of {label!r} lies outside the image of size {frame.size}: {coords}")
