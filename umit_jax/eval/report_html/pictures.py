"""report_files/: the pictures beside a page, and pictures.json, which says what is on each.

pictures.json is {schema, checkpoint {name, step}, left_out {reason: n}, shown {hash: picture}}, the
hash being that of a prediction's `images`.

| key of a picture | is                                                                                           |
| kind, modality, window | of the media, as in a Record                                                           |
| size             | (w, h) or (w, h, d) in pixels or voxels: what coordinates are ratios of                      |
| aspect           | how much wider and taller than a square a pixel is, (x, y), the smaller one 1                |
| file             | PNG; of a volume a sheet with its slices row by row                                          |
| columns, cell, gap | of a sheet: slices in a row, (w, h) of one in pixels, pixels of margin around each         |

A file is named by its content, so questions about one image share it. Nothing of a patient but the pixels is in it.
"""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from umit_jax.targets import Frame

FOLDER, INDEX, SCHEMA = "report_files", "pictures.json", 1
_FILE = re.compile(r"[0-9a-f]{20}\.png")


class PicturesError(ValueError):
    """A pictures.json that cannot be read; the message names the file and the field."""


@dataclasses.dataclass(frozen=True)
class Picture:
    kind: str
    modality: str
    size: tuple[int, ...]
    file: str
    aspect: tuple[float, float] = (1.0, 1.0)
    window: str = ""
    columns: int = 1
    cell: tuple[int, int] = (1, 1)
    gap: int = 0

    @property
    def display(self) -> Frame:
        """The frame that the page draws in: square units, and slices along the third axis."""
        w, h = self.size[0] * self.aspect[0], self.size[1] * self.aspect[1]
        return Frame("raw" if len(self.size) == 2 else "voxel", (w, h, *self.size[2:]))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Picture":
        made: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in value.items()}
        picture = cls(**made)
        if not _FILE.fullmatch(picture.file):
            raise ValueError(f"file: expected 20 hexadecimal digits and .png, found {picture.file!r}")
        if picture.kind not in ("image", "volume") or len(picture.size) != (2 if picture.kind == "image" else 3):
            raise ValueError(f"kind, size: expected an image or a volume, found {picture.kind!r}, {picture.size}")
        for numbers in (picture.size, picture.aspect, picture.cell, (picture.columns, picture.gap + 1)):
            if not all(type(n) in (int, float) and n > 0 for n in numbers):
                raise ValueError(f"expected positive numbers, found {numbers}")
        return picture


@dataclasses.dataclass(frozen=True)
class Pictures:
    """shown: by the hash of the media. left_out: questions without a picture, by reason. checkpoint: name and step."""

    shown: Mapping[str, Picture] = dataclasses.field(default_factory=dict)
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    checkpoint: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def of(self, prediction: Mapping[str, Any]) -> list[Picture]:
        """All pictures of a prediction in order, or none where one is missing."""
        hashes = prediction.get("images") or []
        return [self.shown[key] for key in hashes] if all(key in self.shown for key in hashes) else []


def read_pictures(folder: Path) -> Pictures:
    """What a folder of pictures holds, nothing where there is none. Raises PicturesError."""
    path = folder / INDEX
    if not path.is_file():
        return Pictures()
    try:
        value = json.loads(path.read_text("utf-8"))
        if value["schema"] != SCHEMA:
            raise ValueError(f"schema: expected {SCHEMA}, found {value['schema']!r}")
        shown = {key: Picture.from_json(item) for key, item in value["shown"].items()}
        return Pictures(shown, {str(k): int(n) for k, n in value["left_out"].items()}, dict(value["checkpoint"]))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise PicturesError(f"{path}: {error!r}" if isinstance(error, KeyError) else f"{path}: {error}") from error


def write_pictures(folder: Path, pictures: Pictures) -> None:
    """Writes pictures.json aside and renames it, then removes pictures that it does not name."""
    value = {
        "schema": SCHEMA,
        "checkpoint": dict(pictures.checkpoint),
        "left_out": dict(pictures.left_out),
        "shown": {key: dataclasses.asdict(picture) for key, picture in pictures.shown.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{INDEX}.tmp"
    aside.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
    os.replace(aside, folder / INDEX)
    named = {picture.file for picture in pictures.shown.values()}
    for path in folder.iterdir():
        if _FILE.fullmatch(path.name) and path.name not in named:
            path.unlink()


def take_over(source: Path, target: Path) -> Pictures:
    """The pictures of one folder in another one too, linked where the file system can and copied where not."""
    pictures = read_pictures(source)
    if pictures.shown and source.resolve() != target.resolve():
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted({picture.file for picture in pictures.shown.values()}):
            if not (target / file).exists() and (source / file).is_file():
                try:
                    os.link(source / file, target / file)
                except OSError:
                    shutil.copyfile(source / file, target / file)
        write_pictures(target, pictures)
    return pictures
