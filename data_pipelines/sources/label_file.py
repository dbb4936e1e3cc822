"""The CSV of labels that goes with a folder of images: one row, one record.

| column         | meaning                                                                                        |
| file           | path in the source folder; a folder is a series, one volume                                     |
| label          | the class, for a classification                                                                 |
| split, patient | as given; without them the patient is the file's own and the split follows from the patient     |
| task, language | what is asked (else it follows from what is filled in), en or zh                                |
| question       | in your words (else a template's); answer: what a vqa, report or caption answers                |
| boxes          | JSON [[label, x1, y1, x2, y2], ...], raw pixels; of a volume [[label, x1, y1, z1, x2, y2, z2]]  |
| points         | JSON [[label, x, y]] or [[label, x, y, z]], one                                                 |

Coordinates count from the edge of the first pixel or voxel of the file as it is stored, the far corner excluded.
"""

import csv
import dataclasses
import difflib
import json
import math
from pathlib import Path
from typing import Any

from data_pipelines.record import LANGUAGES, SPLITS

REQUIRED = ("file", "label")
OPTIONAL = ("split", "patient", "task", "language", "question", "answer", "boxes", "points")
TASKS = ("classification", "vqa", "report", "caption", "detection", "landmark")

Item = tuple[str, tuple[float, ...]]  # a label with the coordinates of a box or point


class LabelFileError(ValueError):
    """A label file that cannot be used at all; one line naming it and the line or column."""


class RowError(ValueError):
    """A row that cannot be used; str() is a short phrase for counting."""


@dataclasses.dataclass(frozen=True)
class Row:
    """line: in the file, from 1, the header's being 1. task: never empty. boxes, points: label and raw coordinates."""

    line: int
    file: str
    label: str
    split: str
    patient: str
    task: str
    language: str
    question: str
    answer: str
    boxes: tuple[Item, ...]
    points: tuple[Item, ...]

    @property
    def text(self) -> str:
        """Everything of the row that a record says in words."""
        names = [name for name, _ in (*self.boxes, *self.points)]
        return "\n".join((self.label, self.question, self.answer, *names))


def read_labels(path: Path) -> tuple[list[Row], list[tuple[int, str]]]:
    """(rows, [(line, reason) of rows that cannot be used]). Raises LabelFileError and OSError."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(path, list(reader.fieldnames or []))
            rows, bad = [], []
            for values in reader:
                try:
                    rows.append(_row(reader.line_num, values))
                except RowError as error:
                    bad.append((reader.line_num, str(error)))
    except UnicodeDecodeError:
        raise LabelFileError(f"{path}: expected UTF-8 text") from None
    except csv.Error as error:
        raise LabelFileError(f"{path}: not a CSV file: {error}") from None
    if not rows and not bad:
        raise LabelFileError(f"{path}: no row below the header")
    return rows, bad


def _check_columns(path: Path, columns: list[str]) -> None:
    known = [*REQUIRED, *OPTIONAL]
    for column in columns:
        if column not in known:
            close = difflib.get_close_matches(column or "", known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else f"; known: {', '.join(known)}"
            raise LabelFileError(f"{path}: unknown column {column!r}{hint}")
        if columns.count(column) > 1:
            raise LabelFileError(f"{path}: column {column!r} stands twice")
    for column in REQUIRED:
        if column not in columns:
            raise LabelFileError(f"{path}: no column {column!r}; found {', '.join(columns) or 'an empty file'}")


def _row(line: int, values: dict[Any, Any]) -> Row:
    if None in values or None in values.values():
        raise RowError("row with more or fewer cells than the header")
    cells = {column: values.get(column, "").strip() for column in (*REQUIRED, *OPTIONAL)}
    if not cells["file"]:
        raise RowError("no file named")
    for column, allowed in (("split", SPLITS), ("language", LANGUAGES), ("task", TASKS)):
        if cells[column] and cells[column] not in allowed:
            raise RowError(f"{column} is not one of {', '.join(allowed)}")
    boxes, points = _items(cells["boxes"], "boxes", (4, 6)), _items(cells["points"], "points", (2, 3))
    task = cells["task"] or _task(cells, boxes, points)
    needed = {
        "classification": cells["label"],
        "vqa": cells["question"] and cells["answer"],
        "report": cells["answer"] or cells["label"],
        "caption": cells["answer"] or cells["label"],
        "detection": boxes,
        "landmark": len(points) == 1,
    }
    if not needed[task]:
        wants = {"vqa": "question and answer", "detection": "boxes", "landmark": "exactly one point"}
        raise RowError(f"{task} without {wants.get(task, 'label' if task == 'classification' else 'answer')}")
    texts = {k: cells[k] for k in ("file", "label", "split", "patient", "question", "answer")}
    return Row(line=line, task=task, language=cells["language"] or "en", boxes=boxes, points=points, **texts)


def _task(cells: dict[str, str], boxes: tuple[Item, ...], points: tuple[Item, ...]) -> str:
    if boxes:
        return "detection"
    if points:
        return "landmark"
    return "vqa" if cells["question"] or cells["answer"] else "classification"


def _items(cell: str, column: str, lengths: tuple[int, int]) -> tuple[Item, ...]:
    if not cell:
        return ()
    try:
        found = json.loads(cell)
    except json.JSONDecodeError:
        raise RowError(f"{column} is not JSON") from None
    if not isinstance(found, list):
        raise RowError(f"{column} is not a list")
    return tuple(_item(entry, column, lengths) for entry in found)


def _item(entry: Any, column: str, lengths: tuple[int, int]) -> Item:
    label, *numbers = entry if isinstance(entry, list) and entry else [None]
    real = [float(n) for n in numbers if isinstance(n, (int, float)) and not isinstance(n, bool) and math.isfinite(n)]
    if len(real) != len(numbers) or len(real) not in lengths or not isinstance(label, str) or not label:
        raise RowError(f"{column} is not a list of a label and {lengths[0]} or {lengths[1]} numbers")
    return label, tuple(real)
