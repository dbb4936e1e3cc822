"""A folder of images and a CSV of labels -> records; shared by dicom_folder and nifti_folder.

Nothing that names a patient is written: a record is called by its line in the CSV, the patient by a keyed hash, and a
row whose own words repeat the name or id in its image's header is quarantined. A patient's records are on one side:
the CSV's split holds for all rows of that patient, and without one it follows from a hash of seed and patient.
"""

import dataclasses
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines.inputs import note
from data_pipelines.media import MediaError
from data_pipelines.media.deidentify import patient_hash, patient_key
from data_pipelines.media.show import Shown
from data_pipelines.parts import Rejected
from data_pipelines.prompts import answer_text, options_text
from data_pipelines.prompts.render import first_number, render_question
from data_pipelines.publish import STRICT, Rules
from data_pipelines.record import MEDIA_TOKEN, Media, Record, Turn, boxes_are_right
from data_pipelines.seeded import generator
from data_pipelines.sources.fetch import cache_dir
from data_pipelines.sources.label_file import Item, LabelFileError, Row, RowError, read_labels
from data_pipelines.sources.views import between
from umit_jax.targets import Frame, Target, TargetError, boxes_target, options_target, points_target, text_target

logger = logging.getLogger(__name__)

LONGEST = 1024  # pixels of an image's longer side
TRAIN, VALIDATION = 0.8, 0.1
_YES_NO = {"en": ("yes", "no"), "zh": ("是", "否")}


@dataclasses.dataclass(frozen=True)
class Reader:
    """How one kind of folder is read. patient: identity of a path's patient from its header, "" if there is none.
    read: the path as it is shown. Both raise MediaError, and both are pickled to the workers. options: what `read`
    depends on, JSON values."""

    name: str
    patient: Callable[[Path], str]
    read: Callable[[Path], Shown]
    options: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Unit:
    """A row whose file is there, or, with a reason, one that cannot be used. patient is the keyed hash."""

    line: int
    reason: str = ""
    row: Row | None = None
    path: Path | None = None
    patient: str = ""
    split: str = ""
    labels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class FolderConverter:
    """The converter of a folder and its label file."""

    reader: Reader
    source: Path
    labels: Path
    seed: int = 0
    license: str = "unspecified"
    rules: Rules = STRICT
    near: bool = True

    @property
    def name(self) -> str:
        return self.reader.name

    @property
    def options(self) -> Mapping[str, Any]:
        return {**self.reader.options, "seed": self.seed, "license": self.license}

    def units(self) -> list[Unit]:
        """Raises LabelFileError and OSError."""
        rows, bad = read_labels(self.labels)
        key = patient_key(self.source, cache_dir())
        labels = {language: tuple(_options(rows, language, self.labels)) for language in _YES_NO}
        units = [Unit(line, reason) for line, reason in bad]
        found: list[tuple[Row, Path, str]] = []
        for row in tqdm(rows, desc=f"{self.name}: patients", disable=None):
            path, reason = self._path(row)
            try:
                if not reason:
                    relative = path.relative_to(os.path.abspath(self.source)).as_posix()
                    found.append((row, path, row.patient or self.reader.patient(path) or relative))
            except MediaError as error:
                reason = error.reason
            except OSError as error:
                reason = error.strerror or "file cannot be read"
            if reason:
                units.append(Unit(row.line, reason))
        splits = _stated_splits(self.labels, found)
        for row, path, patient in found:
            split = splits.get(patient) or split_of(patient, self.seed)
            units.append(Unit(row.line, "", row, path, patient_hash(key, patient), split, labels[row.language]))
        return units

    def _path(self, row: Row) -> tuple[Path, str]:
        """(path, why it cannot be used or "")."""
        root = Path(os.path.abspath(self.source))
        path = Path(os.path.abspath(root / row.file))  # not resolved: a folder of links is a folder
        if not path.is_relative_to(root):
            return path, "file outside the source folder"
        return path, "" if os.path.exists(path) else "no such file"  # also where the name is too long for one

    def records(self, unit: Unit) -> Iterator[Record | Rejected]:
        reason = unit.reason
        if unit.row is not None and unit.path is not None:
            note(unit.path)
            try:
                record = _record(self.name, unit.row, self.reader.read(unit.path), unit.labels, self.seed)
                yield dataclasses.replace(record, split=unit.split, patient_id=unit.patient, license=self.license)
                return
            except (MediaError, RowError) as error:
                reason = str(error)
            except OSError as error:
                reason = error.strerror or "file cannot be read"
        logger.warning("line %d of %s: %s", unit.line, self.labels.name, reason)
        yield Rejected(f"line {unit.line}", reason)


def _stated_splits(labels: Path, found: Sequence[tuple[Row, Path, str]]) -> dict[str, str]:
    """{patient: split} of those whose rows name one. Raises LabelFileError where they name two."""
    stated: dict[str, Row] = {}
    for row, _, patient in found:
        first = stated.setdefault(patient, row) if row.split else row
        if first.split != row.split:
            raise LabelFileError(
                f"{labels}: lines {first.line} and {row.line}: one patient in {first.split} and in {row.split}"
            )
    return {patient: row.split for patient, row in stated.items()}


def split_of(patient: str, seed: int) -> str:
    """train, validation or test (80, 10 and 10 in a hundred), from a hash of seed and patient alone."""
    digest = hashlib.sha256(f"{seed}\x1f{patient}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if share < TRAIN else "validation" if share < TRAIN + VALIDATION else "test"


def _options(rows: Sequence[Row], language: str, file: Path) -> list[str]:
    """The labels of a language. Raises LabelFileError for two that differ in case only, for answers may differ so."""
    labels = sorted({row.label for row in rows if row.task == "classification" and row.language == language})
    seen: dict[str, str] = {}
    for label in labels:
        if (other := seen.setdefault(label.lower(), label)) != label:
            raise LabelFileError(f"{file}: labels {other!r} and {label!r} differ in case only: write them as one")
    return labels


def _record(dataset: str, row: Row, shown: Shown, options: Sequence[str], seed: int) -> Record:
    """One row as a record, still without patient, split and licence."""
    if not boxes_are_right(f"{row.question}\n{row.answer}"):
        raise RowError("boxes or points outside the image, or inverted")
    words = set(row.text.lower().replace(",", " ").replace("^", " ").split())
    if words & shown.naming:
        raise RowError("the row's words name the patient")
    try:
        target, options = _target(row, shown, options)
        answer = answer_text(target, task=row.task, language=row.language)
    except TargetError:
        raise RowError("boxes or points outside the image, or inverted") from None
    topic, question = _question(row, shown, options, seed)
    return Record(
        id=f"{dataset}/line_{row.line}",
        dataset=dataset,
        split="train",
        patient_id="",
        task=row.task,
        language=row.language,
        topic=topic,
        media=(shown.media,),
        turns=(Turn("user", MEDIA_TOKEN + question), Turn("assistant", answer)),
        target=target,
        label_kind="manual",
        license="",
        source=f"{dataset}: line {row.line} of the label file",
    )


def _target(row: Row, shown: Shown, options: Sequence[str]) -> tuple[Target, Sequence[str]]:
    """The truth, and the options to be listed in the question."""
    if row.task == "classification":
        if len(options) < 2:
            raise RowError("only one label in the file: nothing to tell apart")
        return options_target(options, options.index(row.label), first_number(row.task)), options
    if row.task == "vqa":
        answer = row.answer.rstrip(".。").lower()
        both = _YES_NO[row.language]
        if answer in both:
            return options_target(both, both.index(answer), first_number(row.task)), both
        return text_target(row.answer), ()
    if row.task in ("report", "caption"):
        return text_target(row.answer or row.label), ()
    frame = frame_of(shown.media)
    if row.task == "detection":
        return boxes_target(frame, [(name, placed(box, shown, 2)) for name, box in row.boxes]), ()
    points = points_target(frame, [(name, placed(point, shown, 1)) for name, point in row.points])
    return points, ()


def frame_of(media: Media) -> Frame:
    return Frame("raw" if media.kind == "image" else "voxel", tuple(float(n) for n in media.size), media.spacing_mm)


def placed(coords: Sequence[float], shown: Shown, corners: int) -> Sequence[float]:
    """Coordinates of the file's own pixels or voxels in those of the image as shown."""
    axes = len(shown.media.size)
    if len(coords) != corners * axes:
        raise RowError(f"{len(coords)} coordinates for an image of {axes} axes")
    if shown.raw_size is not None:
        if shown.raw_size[2:] != shown.media.size[2:]:
            raise RowError("boxes or points in a cine of which not every frame is shown")
        # Multiplied first: the far edge stays the far edge.
        return [c * shown.media.size[i % axes] / shown.raw_size[i % axes] for i, c in enumerate(coords)]
    if shown.raw is None or shown.shown is None:
        return coords
    near, far = coords[:3], coords[-3:]
    if min(near) < 0 or any(c > n for c, n in zip(far, shown.raw.size, strict=True)):
        raise RowError("boxes or points outside the image, or inverted")
    if corners == 2 and any(b <= a for a, b in zip(near, far, strict=True)):
        raise RowError("boxes or points outside the image, or inverted")
    return between(coords, shown.raw, shown.shown)


def _question(row: Row, shown: Shown, options: Sequence[str], seed: int) -> tuple[str, str]:
    """(topic, question text with the options listed)."""
    solid = shown.media.kind == "volume"
    names = list(dict.fromkeys(name for name, _ in _asked(row)))
    target = (", " if row.language == "en" else "、").join(names)
    kinds = {
        "classification": ("finding", "label"),
        "vqa": ("", row.question[:80]),
        "report": ("report", "report"),
        "caption": ("caption", "caption"),
        "detection": ("box3d" if solid else "box2d", f"{'box3d' if solid else 'box'}/{'+'.join(names)}"),
        "landmark": ("point", f"{'landmark3d' if solid else 'landmark'}/{'+'.join(names)}"),
    }
    kind, topic = kinds[row.task]
    if row.question:
        listed = options_text(options, first_number(row.task), row.language) if options else ""
        return topic, f"{row.question}\n{listed}" if listed else row.question
    slots: dict[str, Any] = {"options": options} if options else {"name": target} if names else {}
    if kind in ("box3d", "point"):
        slots["size"] = shown.media.size
    rng = generator(seed, str(row.line))
    return topic, render_question(rng, row.task, kind, row.language, plane=shown.plane, **slots)


def _asked(row: Row) -> tuple[Item, ...]:
    return row.boxes if row.task == "detection" else row.points if row.task == "landmark" else ()
