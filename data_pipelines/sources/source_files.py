"""Files of a downloaded data set: found by name or reported as missing, kept inside the source folder, read once.

Annotation files name their images; a name may be absent, lead out of the folder or stand for a damaged file, and each
is a reason that is counted. Several questions about an image follow each other, so the last few images are kept.
"""

import functools
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_pipelines.inputs import note
from data_pipelines.media import MediaError
from data_pipelines.media.deidentify import patient_hash, patient_key
from data_pipelines.media.picture import picture
from data_pipelines.record import Media
from data_pipelines.sources.fetch import cache_dir
from data_pipelines.sources.layout import LayoutError


def find(source: Path, *patterns: str) -> list[Path]:
    """Files of the first pattern that has any, below `source` or one folder deeper, sorted; may be empty."""
    for pattern in patterns:
        for deeper in ("", "*/"):
            found = sorted(path for path in source.glob(deeper + pattern) if path.exists())
            if found:
                return found
    return []


def find_one(source: Path, *patterns: str) -> Path:
    """As `find`, and exactly one. Raises LayoutError."""
    found = find(source, *patterns)
    if len(found) != 1:
        raise missing(source, patterns, found)
    return found[0]


def folders(source: Path) -> list[Path]:
    """The places that `find` looks in: `source` and the folders in it, sorted."""
    below = source.iterdir() if source.is_dir() else ()
    return [source, *sorted(path for path in below if path.is_dir() and not path.name.startswith("."))]


def missing(source: Path, patterns: Iterable[str], found: Iterable[Path] = ()) -> LayoutError:
    """The error for a source that lacks its files, or has too many of them."""
    there = [path.relative_to(source).as_posix() for path in found]
    if not there:
        names = sorted(path.name for path in source.iterdir()) if source.is_dir() else []
        there = [name for name in names if not name.startswith(".")][:8]
    return LayoutError(f"{source}: expected {' or '.join(patterns)}, found {', '.join(there) or 'nothing'}")


def stamp(*paths: Path) -> list[list[str | int]]:
    """Names, sizes and times of change: among a converter's options, so that a changed file is read again."""
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths]


def inside(root: Path, name: str) -> Path:
    """The file that `name` stands for. Raises MediaError where it leads out of `root` or is not there."""
    base = os.path.abspath(root)
    path = Path(os.path.abspath(os.path.join(base, name.strip())))  # not resolved: a folder of links is a folder
    if not name.strip() or not path.is_relative_to(base):
        raise MediaError("image outside the source folder" if name.strip() else "no image named")
    if not note(path):
        raise MediaError("image file is missing")
    return path


@functools.lru_cache(maxsize=8)
def read_picture(path: Path, modality: str = "OT") -> Media:
    """A file as Media, see media.picture. Raises MediaError."""
    try:
        return picture(path.read_bytes(), modality)
    except OSError as error:
        raise MediaError(error.strerror or "image file cannot be read") from None


@functools.lru_cache(maxsize=4)
def load_rows(file: Path) -> list[Any]:
    """The rows of a JSON file of a few megabytes, kept for the next call. Raises LayoutError."""
    rows = load_json(file)
    if not isinstance(rows, list):
        raise LayoutError(f"{file}: expected a list of rows, found {type(rows).__name__}")
    return rows


def load_json(file: Path, **options: Any) -> Any:
    """options: of json.loads. Raises LayoutError for what is no JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"), **options)
    except (ValueError, RecursionError):
        raise LayoutError(f"{file}: no JSON") from None


def patient_of(source: Path, *identity: str) -> str:
    """The keyed hash of a patient, or of what stands for one; the key stays beside the source."""
    return patient_hash(_key(source if source.is_dir() else source.parent), *identity)


@functools.lru_cache(maxsize=8)
def _key(folder: Path) -> bytes:
    return patient_key(folder, cache_dir())
