"""Question sets as the Hugging Face Hub stores them: data/SPLIT-*.parquet with columns image, question and answer.

An image is a struct of its file's bytes and a path. There is no image name and no patient, so an image's own digest
stands for the patient. Rows are read a row group at a time; the last one is kept, because rows come in order.
"""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.media import MediaError
from data_pipelines.media.picture import picture
from data_pipelines.parts import Rejected
from data_pipelines.publish import Rules
from data_pipelines.record import Media, Record
from data_pipelines.sources.catalogue import catalogue
from data_pipelines.sources.layout import LayoutError
from data_pipelines.sources.make import Maker, RowError, plain, topic_of, vqa
from data_pipelines.sources.source_files import find, missing, patient_of, stamp

_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
_PART = re.compile(r"-(\d+)-of-(\d+)")
_COLUMNS = ("image", "question", "answer")


@dataclasses.dataclass(frozen=True)
class HubVqa:
    """A unit is (file, row group, row in it, number of the row in its split). expected: see Rules."""

    name: str
    source: Path
    expected: Mapping[str, int]
    seed: int = 0
    near: bool = True

    @property
    def rules(self) -> Rules:
        return Rules(leaks="report", expected=self.expected)

    @property
    def options(self) -> Mapping[str, Any]:
        return {"seed": self.seed, "files": stamp(*(file for _, file in files(self.source)))}

    def units(self) -> list[tuple[str, int, int, int]]:
        """Raises LayoutError for a file that is no parquet file or lacks a column."""
        patient_of(self.source, "")  # makes the key before several workers want it
        units, numbers = [], dict.fromkeys(_SPLITS.values(), 0)
        for split, file in files(self.source):
            opened = _open(file)
            lacking = set(_COLUMNS) - set(opened.schema_arrow.names)
            if lacking:
                there = ", ".join(opened.schema_arrow.names)
                raise LayoutError(f"{file}: expected columns {', '.join(_COLUMNS)}, found {there}")
            relative = file.relative_to(self.source).as_posix()
            for group in range(opened.num_row_groups):
                for row in range(opened.metadata.row_group(group).num_rows):
                    units.append((relative, group, row, numbers[split]))
                    numbers[split] += 1
        return units

    def records(self, unit: tuple[str, int, int, int]) -> Iterator[Record | Rejected]:
        relative, group, row, number = unit
        file = self.source / relative
        split = _split_of(file)
        values = _group(file, group).slice(row, 1).to_pylist()[0]
        try:
            question, target = vqa(plain(values["question"]), plain(values["answer"]), "en")
            image = values["image"]
            data = image.get("bytes") if isinstance(image, dict) else image
            if not isinstance(data, bytes) or not data:
                raise RowError("no image")
            digest, media = _picture(data)
        except (RowError, MediaError) as error:
            yield Rejected(f"{split}, row {number}", str(error))
            return
        maker = Maker(self.name, catalogue()[self.name].license, self.source, self.seed)
        yield maker.record(
            f"{split}/{number}",
            split=split,
            patient=digest,
            task="vqa",
            language="en",
            topic=topic_of(question, target),
            media=[media],
            question=question,
            target=target,
            origin=f"{relative}, row {number} of {split}",
        )


def files(source: Path) -> list[tuple[str, Path]]:
    """(split, file) of the parquet files, in a fixed order; those of no known split are left."""
    found = find(source, "data/*.parquet", "*.parquet")
    return [(_split_of(file), file) for file in found if _split_of(file)]


def check(source: Path, splits: Sequence[str]) -> None:
    """Raises LayoutError where a split has no file, or not each of its parts (SPLIT-NUMBER-of-COUNT) once."""
    there = files(source)
    for split in splits:
        found = [file for other, file in there if other == split]
        if not found:
            raise missing(source, (f"{split}-*.parquet",), (file for _, file in there))
        parts = [(int(part[1]), int(part[2]), file) for file in found if (part := _PART.search(file.name))]
        for count in sorted({count for _, count, _ in parts}):
            for number in range(count):
                same = [file for n, of, file in parts if (n, of) == (number, count)]
                if len(same) != 1:
                    raise missing(source, (f"one {split}-{number:05d}-of-{count:05d}*.parquet",), found)
        if len({count for _, count, _ in parts}) > 1:
            raise missing(source, (f"{split}-*.parquet of one upload",), found)


def _split_of(file: Path) -> str:
    return _SPLITS.get(file.name.split("-")[0].split(".")[0], "")


def _open(file: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError):
        raise LayoutError(f"{file}: no parquet file") from None


@functools.lru_cache(maxsize=1)
def _group(file: Path, group: int) -> Any:
    with _open(file) as opened:
        try:
            return opened.read_row_group(group, columns=list(_COLUMNS))
        except (OSError, ValueError):
            raise LayoutError(f"{file}: row group {group} is damaged") from None


@functools.lru_cache(maxsize=8)
def _picture(data: bytes) -> tuple[str, Media]:
    return hashlib.sha256(data).hexdigest(), picture(data, "OT")
