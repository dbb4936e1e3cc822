"""Record: the one on-disk schema. A record is one conversation about one patient's images, with its structured truth.

Media stay encoded (PNG, JPEG) and carry what geometry they have; identifiers of a patient never get this far: the
`patient_id` is a keyed hash whose key stays beside the source data.
"""

import dataclasses
import re
from typing import Any

from umit_jax.batch import TASKS
from umit_jax.targets import LANGUAGES, Target, TargetError, check_target

SPLITS = ("train", "validation", "test")
MEDIA_KINDS = ("image", "volume")
LABEL_KINDS = ("manual", "model", "tag", "measured", "templated", "synthetic")
MEDIA_TOKEN = "<media>"  # stands in a user turn where the next of the record's media goes
BOX = re.compile(r"<\|box_start\|>\((\d+),\s*(\d+)\),\s*\((\d+),\s*(\d+)\)<\|box_end\|>")  # 2D, in 0-1000


class RecordError(ValueError):
    """A record that is not well formed; the message names the record and the field."""


@dataclasses.dataclass(frozen=True)
class Media:
    """One image, or one volume as a stack of slices.

    frames: encoded bytes, one for an image, one per slice for a volume (in order of the third axis).
    size: (w, h) or (w, h, d) in pixels or voxels. spacing_mm: millimetres between them along the same axes, or None.
    orientation: direction in which each axis grows, as three letters of R/L, A/P, S/I ("LPS": x to the patient's
    left, y to posterior, z to superior), or "" for an image without one. window: name of the intensity preset the
    frames were rendered with, or "". modality: DICOM's code (CT, MR, DX, CR, US, NM, PT, ...; XC photograph,
    OP fundus, SM slide microscopy).
    """

    frames: tuple[bytes, ...]
    kind: str
    modality: str
    size: tuple[int, ...]
    spacing_mm: tuple[float, ...] | None = None
    orientation: str = ""
    window: str = ""


@dataclasses.dataclass(frozen=True)
class Turn:
    role: str  # "user" or "assistant"; the first may be "system"
    text: str  # MEDIA_TOKEN in a user turn stands for the next of the record's media


@dataclasses.dataclass(frozen=True)
class Record:
    """One sample. `topic` names what is asked, whatever the wording ("organ", "box/liver", "landmark/L3"): naive
    baselines and score breakdowns group by it. `label_kind` says where the truth comes from, `source` how it was
    derived and from which file of the source (no patient's identifiers), `synthetic` that no patient exists.
    `heldout` says what separates the test split: "patient" or "region"."""

    id: str
    dataset: str
    split: str
    patient_id: str
    task: str
    language: str
    topic: str
    media: tuple[Media, ...]
    turns: tuple[Turn, ...]
    target: Target
    label_kind: str
    license: str
    source: str
    synthetic: bool = False
    heldout: str = "patient"


def boxes_are_right(text: str) -> bool:
    """Whether each box that a text opens can be read, is not empty or inverted, and lies in the image."""
    found = [tuple(map(int, match.groups())) for match in BOX.finditer(text)]
    whole = text.count("<|box_start|>") == text.count("<|box_end|>") == len(found)
    return whole and all(x1 < x2 <= 1000 and y1 < y2 <= 1000 for x1, y1, x2, y2 in found)


def _require(ok: bool, record: Record, field: str, expected: str, found: Any) -> None:
    if not ok:
        raise RecordError(f"record {record.id!r}: {field}: expected {expected}, found {found!r}")


def check_record(record: Record) -> Record:
    """Returns the record, or raises RecordError naming the first field that is wrong."""
    _require(bool(record.id), record, "id", "a non-empty string", record.id)
    for field, allowed in (("split", SPLITS), ("task", TASKS), ("language", LANGUAGES), ("label_kind", LABEL_KINDS)):
        _require(getattr(record, field) in allowed, record, field, " | ".join(allowed), getattr(record, field))
    _require(record.heldout in ("patient", "region"), record, "heldout", "patient | region", record.heldout)
    for field in ("dataset", "patient_id", "topic", "license", "source"):
        _require(bool(getattr(record, field)), record, field, "a non-empty string", getattr(record, field))
    for i, media in enumerate(record.media):
        axes = {"image": 2, "volume": 3}.get(media.kind)
        _require(axes is not None, record, f"media[{i}].kind", " | ".join(MEDIA_KINDS), media.kind)
        _require(len(media.size) == axes, record, f"media[{i}].size", f"{axes} numbers", media.size)
        frames = 1 if axes == 2 else media.size[2]
        _require(len(media.frames) == frames, record, f"media[{i}].frames", f"{frames} frames", len(media.frames))
        spacing = media.spacing_mm
        _require(spacing is None or len(spacing) == axes, record, f"media[{i}].spacing_mm", f"{axes} numbers", spacing)
    roles = [turn.role for turn in record.turns]
    roles = roles[1:] if roles[:1] == ["system"] else roles
    expected = ["user", "assistant"] * (len(roles) // 2)
    _require(bool(roles) and roles == expected, record, "turns", "user and assistant in turn", roles)
    holes = sum(turn.text.count(MEDIA_TOKEN) for turn in record.turns if turn.role == "user")
    _require(holes == len(record.media), record, "turns", f"{len(record.media)} times {MEDIA_TOKEN}", holes)
    _require(all(turn.text for turn in record.turns), record, "turns", "text in every turn", "an empty one")
    wrong = next((turn.text for turn in record.turns if not boxes_are_right(turn.text)), None)
    _require(wrong is None, record, "turns", "boxes within 0-1000, neither empty nor inverted", wrong)
    try:
        check_target(record.target)
    except TargetError as error:
        raise RecordError(f"record {record.id!r}: {error}") from error
    return record
