"""`umit prepare rsna`: chest radiographs of the RSNA pneumonia challenge 2018 -> boxes and one of three classes.

| file                              | content                                                                       |
| stage_2_train_labels.csv          | patientId,x,y,width,height,Target: a row per box, or one without a box        |
| stage_2_detailed_class_info.csv   | patientId,class: a row per row of the labels, so a class comes again          |
| stage_2_train_images/{id}.dcm     | 1024 x 1024, MONOCHROME2, JPEG; stage_2_test_images has no public truth        |

There is no official split with truth: each image, which is one patient here, falls to train, validation or test (80,
10, 10 in a hundred) by a hash of its id and the seed. A detection question is asked of images with pneumonia, with
`negatives` of all images, and answered with all boxes. Images are marked as secondary captures, but were cleaned for
publication: only a header that states burned-in text is refused. Ids of the source are hashed in the records' ids too.
"""

import csv
import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.media import MediaError
from data_pipelines.media.dicom import own_jpeg
from data_pipelines.media.picture import same_picture
from data_pipelines.media.show import show
from data_pipelines.parts import Rejected
from data_pipelines.publish import Rules
from data_pipelines.record import Media, Record
from data_pipelines.sources.catalogue import catalogue
from data_pipelines.sources.folder import split_of
from data_pipelines.sources.layout import LayoutError, refuse_packed
from data_pipelines.sources.make import Maker, RowError, boxes
from data_pipelines.sources.source_files import find_one, inside, patient_of
from umit_jax.targets import options_target

NAME = "rsna"
CLASSES = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
FINDING = "pneumonia"
_BOX = ("x", "y", "width", "height")
_LABELS = ("patientId", *_BOX, "Target")


@dataclasses.dataclass(frozen=True)
class Unit:
    """One image: its boxes (x, y, width, height), its class, and why it cannot be used or ""."""

    image: str
    boxes: tuple[tuple[float, ...], ...]
    label: str
    reason: str

    @property
    def key(self) -> str:
        """Stands for the source's id, the same for everybody."""
        return hashlib.sha256(self.image.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class RsnaConverter:
    """source: the folder that holds the tables. negatives: whether images without a box are asked for boxes."""

    source: Path
    negatives: bool
    seed: int
    name: str = NAME
    near: bool = True

    @property
    def options(self) -> Mapping[str, Any]:
        return {"negatives": self.negatives, "seed": self.seed}

    @property
    def rules(self) -> Rules:
        expected = catalogue()[NAME].records
        if self.negatives:
            expected = {**expected, "all/detection": expected["all/classification"]}
        return Rules(leaks="report", expected=expected)

    def units(self) -> list[Unit]:
        """Raises LayoutError and OSError."""
        refuse_packed(self._folder)
        patient_of(self.source, "")  # the key is there before the workers are
        labels = _grouped(find_one(self.source, "stage_2_train_labels.csv"), _LABELS)
        classes = _grouped(find_one(self.source, "stage_2_detailed_class_info.csv"), ("patientId", "class"))
        return [
            _unit(image, labels.get(image, []), {row["class"].strip() for row in classes.get(image, [])})
            for image in dict.fromkeys([*labels, *classes])
        ]

    @property
    def _folder(self) -> Path:
        return self.source / "stage_2_train_images"

    def records(self, unit: Unit) -> Iterator[Record | Rejected]:
        reason = unit.reason
        try:
            if not reason:
                media = _shown(inside(self._folder, f"{unit.image}.dcm"))
                yield self._class(unit, media)
                if unit.boxes or self.negatives:
                    yield self._boxes(unit, media)
        except MediaError as error:
            reason = error.reason
        except RowError as error:
            yield Rejected(f"{NAME}/{unit.key}/detection", str(error))
        if reason:
            yield Rejected(f"{NAME}/{unit.key}", reason)

    def _class(self, unit: Unit, media: Media) -> Record:
        key = f"{unit.key}/class"
        return self._maker.record(
            key,
            task="classification",
            topic="finding",
            question=self._maker.ask(key, "classification", "finding", "en", options=CLASSES),
            target=options_target(CLASSES, CLASSES.index(unit.label), 0),
            **self._shared(unit, media),
        )

    def _boxes(self, unit: Unit, media: Media) -> Record:
        key = f"{unit.key}/detection"
        corners = [(FINDING, (x, y, x + width, y + height)) for x, y, width, height in unit.boxes]
        return self._maker.record(
            key,
            task="detection",
            topic=f"box/{FINDING}",
            question=self._maker.ask(key, "detection", "box2d", "en", FINDING),
            target=boxes(media, corners),
            **self._shared(unit, media),
        )

    @property
    def _maker(self) -> Maker:
        return Maker(NAME, catalogue()[NAME].license, self.source, self.seed)

    def _shared(self, unit: Unit, media: Media) -> dict[str, Any]:
        split = split_of(unit.image, self.seed)
        origin = f"stage 2 training image {unit.key}, split by hash with seed {self.seed}"
        return {"split": split, "patient": unit.image, "language": "en", "media": (media,), "origin": origin}


def converter(source: Path, *, negatives: bool = False, seed: int = 0) -> RsnaConverter:
    """negatives: whether images without a box are asked for boxes too, as the challenge does. seed: of the split and of
    the wordings. Raises LayoutError."""
    return RsnaConverter(find_one(source, "stage_2_train_labels.csv").parent, negatives, seed)


def _grouped(path: Path, columns: tuple[str, ...]) -> dict[str, list[dict[str, str]]]:
    """Rows by patientId, in the order of the file. Raises LayoutError."""
    rows: dict[str, list[dict[str, str]]] = {}
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        table = csv.DictReader(file, restval="")
        if set(columns) - set(table.fieldnames or ()):
            found = ", ".join(table.fieldnames or ()) or "none"
            raise LayoutError(f"{path}: expected columns {', '.join(columns)}, found {found}")
        try:
            for row in table:
                rows.setdefault(row["patientId"].strip(), []).append(row)
        except csv.Error as error:
            raise LayoutError(f"{path}: no CSV after line {table.line_num}: {error}") from None
    return rows


def _unit(image: str, rows: list[dict[str, str]], classes: set[str]) -> Unit:
    found, reason = _boxes_of(rows)
    label = next(iter(classes), "")
    if len(classes) != 1:
        reason = reason or ("several classes for one image" if classes else "no class for the image")
    elif label not in CLASSES:
        reason = reason or "unknown class"
    elif bool(found) != (label == CLASSES[-1]):
        reason = reason or "class and boxes disagree"
    return Unit(image, found, label, reason)


def _boxes_of(rows: list[dict[str, str]]) -> tuple[tuple[tuple[float, ...], ...], str]:
    """(the boxes of an image's rows, why they cannot be used or "")."""
    targets = {row["Target"].strip() for row in rows}
    if len(targets) != 1 or targets - {"0", "1"}:
        return (), "not one target of 0 or 1" if rows else "no label for the image"
    cells = [[row[column].strip() for column in _BOX] for row in rows]
    if targets == {"0"}:
        return (), "box without pneumonia" if any(any(row) for row in cells) else ""
    try:
        found = tuple(dict.fromkeys(tuple(float(cell) for cell in row) for row in cells))
    except ValueError:
        return (), "pneumonia without four numbers of a box"
    if not all(math.isfinite(number) for box in found for number in box):
        return (), "pneumonia without four numbers of a box"
    return found, ""


def _shown(path: Path) -> Media:
    """The image as the JPEG inside the file, where that is what the file shows."""
    media = show(path, refused=("yes",), kinds=("dicom",)).media
    if media.kind != "image":
        raise MediaError("not a single image")
    return same_picture(media, own_jpeg(path))
