"""`umit prepare m3d_vqa`: the questions of M3D-VQA about volumes of M3D-Cap, with four choices each -> closed VQA.

| column                   | content                                                                            |
| Image Path               | M3D_Cap_npy/ct_case/..., see m3d_volume                                             |
| Question Type            | 1 plane, 2 phase, 3 organ, 4 abnormality, 5 location                                |
| Question, Choice A to D  | asked with the choices that are there, numbered from 1                              |
| Answer, Answer Choice    | the answer and its letter, which must agree                                         |

M3D_VQA_{train,val,test}.csv are the splits; test5k is a part of test, and yn_train holds questions without choices,
answered with yes or no. The tables are read by byte ranges of whole rows, every cell as text.
"""

import codecs
import csv
import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from data_pipelines.media import MediaError
from data_pipelines.parts import Rejected
from data_pipelines.prompts import options_text
from data_pipelines.publish import Rules
from data_pipelines.record import Record
from data_pipelines.sources.catalogue import catalogue
from data_pipelines.sources.layout import LayoutError, one_of
from data_pipelines.sources.m3d_volume import find_cases, find_volume, refuse_packed_volumes, show_volume, tail_of
from data_pipelines.sources.make import Maker, RowError, kind_of, plain, vqa
from data_pipelines.sources.source_files import find, missing, patient_of
from umit_jax.targets import Target, options_target

NAME = "m3d_vqa"
FILES = {"train": "train", "val": "validation", "test": "test", "test5k": "test", "yn_train": "train"}
USUAL = ("train", "val", "test")
TYPES = {"1": "plane", "2": "phase", "3": "organ", "4": "abnormality", "5": "location"}
_NEEDED = ("Image Path", "Question Type", "Question", "Answer")
_LETTERS = "ABCD"
_ROWS = 16  # of a unit


@dataclasses.dataclass(frozen=True)
class Unit:
    """Bytes [start, stop) of a table, whole rows, the first of which is number `row`."""

    part: str
    start: int
    stop: int
    row: int


@dataclasses.dataclass(frozen=True)
class M3dVqaConverter:
    """folder: where the tables are. images: where M3D-Cap is."""

    source: Path
    folder: Path
    images: Path
    parts: tuple[str, ...]
    seed: int
    name: str = NAME
    near: bool = True

    @property
    def options(self) -> Mapping[str, Any]:
        stats = [self._file(part).stat() for part in self.parts]
        return {"parts": self.parts, "seed": self.seed, "files": [[s.st_size, s.st_mtime_ns] for s in stats]}

    @property
    def rules(self) -> Rules:
        return Rules(leaks="report", expected=catalogue()[NAME].records if self.parts == USUAL else {})

    def _file(self, part: str) -> Path:
        return self.folder / f"M3D_VQA_{part}.csv"

    def units(self) -> list[Unit]:
        """Raises LayoutError and OSError."""
        refuse_packed_volumes(self.images)
        patient_of(self.source, "")  # the key is there before the workers are
        units = []
        for part in self.parts:
            columns_of(self._file(part))
            borders = list(_borders(self._file(part)))
            for first in range(1, len(borders) - 1, _ROWS):  # row 0 is the header
                last = min(first + _ROWS, len(borders) - 1)
                units.append(Unit(part, borders[first], borders[last], first))
        return units

    def records(self, unit: Unit) -> Iterator[Record | Rejected]:
        file = self._file(unit.part)
        columns = columns_of(file)
        with open(file, "rb") as opened:
            opened.seek(unit.start)
            data = opened.read(unit.stop - unit.start)
        for i, row in enumerate(_rows(io.BytesIO(data))):
            key = f"{unit.part}/{unit.row + i}"
            try:
                cells = _cells(row)
                if len(cells) != len(columns):
                    raise RowError("row of another number of columns")
                yield self._record(key, unit.part, dict(zip(columns, map(plain, cells), strict=True)))
            except (RowError, MediaError) as error:
                yield Rejected(f"{NAME}/{key}", str(error))

    def _record(self, key: str, part: str, row: Mapping[str, str]) -> Record:
        kind = TYPES.get(row["Question Type"].removesuffix(".0"))
        if kind is None:
            raise RowError("question type is not 1 to 5")
        question, target = asked(row)
        tail = tail_of(row["Image Path"])
        media = show_volume(find_volume(self.images, tail))
        return Maker(NAME, catalogue()[NAME].license, self.source, self.seed).record(
            key,
            split=FILES[part],
            patient="/".join(tail.split("/")[:-1]),
            task="vqa",
            language="en",
            topic=f"{kind_of(target)}/{kind}",
            media=(media,),
            question=question,
            target=target,
            origin=f"M3D_VQA_{part}.csv, row {key.split('/')[1]}",
            label_kind="model",
        )


def converter(
    source: Path, *, images: Path | None = None, subset: Sequence[str] = (), seed: int = 0
) -> M3dVqaConverter:
    """images: the folder of M3D_Cap_npy or M3D_Cap, where that is not `source`. subset: which of FILES, by default
    train, val and test, all of which must be there. Raises LayoutError."""
    tables = find(source, "M3D_VQA_*.csv")
    if not tables:
        raise LayoutError(f"{source}: no M3D_VQA_*.csv")
    folder = tables[0].parent
    there = [part for part in catalogue()[NAME].subsets if (folder / f"M3D_VQA_{part}.csv").is_file()]
    parts = tuple(one_of("subset", part, there) for part in dict.fromkeys(subset))
    for part in () if parts else USUAL:
        if part not in there:
            raise missing(folder, (f"M3D_VQA_{part}.csv, or --subset",), tables)
    return M3dVqaConverter(source, folder, find_cases(images or source), parts or USUAL, seed)


def asked(row: Mapping[str, str]) -> tuple[str, Target]:
    """(question with its choices listed, target) of a row. Raises RowError."""
    choices = {letter: row.get(f"Choice {letter}", "") for letter in _LETTERS}
    options = [choice for choice in choices.values() if choice]
    if not options:
        return vqa(row["Question"], row["Answer"], "en")
    if not row["Question"]:
        raise RowError("no question")
    answer = choices.get(row.get("Answer Choice", "").strip(" .").upper(), "")
    if not answer:
        raise RowError("answer names no choice")
    if row["Answer"] and row["Answer"].lower().rstrip(".") != answer.lower().rstrip("."):
        raise RowError("answer is not the choice that it names")
    if len(options) < 2 or len({option.lower() for option in options}) != len(options):
        raise RowError("choices repeat")
    target = options_target(options, options.index(answer), 1)
    return f"{row['Question']}\n{options_text(options, 1, 'en')}", target


def columns_of(file: Path) -> list[str]:
    """The header. Raises LayoutError."""
    with open(file, "rb") as opened:
        columns = _cells(next(_rows(opened), b"").removeprefix(codecs.BOM_UTF8))
    if set(_NEEDED) - set(columns):
        raise LayoutError(f"{file}: expected columns {', '.join(_NEEDED)}, found {', '.join(columns) or 'none'}")
    return columns


def _borders(file: Path) -> Iterator[int]:
    """Where each row starts, and the end of the file."""
    at = 0
    yield at
    with open(file, "rb") as opened:
        for row in _rows(opened):
            at += len(row)
            yield at


def _rows(lines: BinaryIO) -> Iterator[bytes]:
    """The rows of a table: a line break inside quotes ends none."""
    row = []
    for line in lines:
        row.append(line)
        if not _quoted(line, len(row) > 1):
            yield b"".join(row)
            row = []
    if row:
        yield b"".join(row)


def _quoted(line: bytes, quoted: bool) -> bool:
    """Whether a line ends inside quotes. As the csv module reads it: they open at the start of a cell and nowhere else,
    so that the inches of a 5" lesion are a character like any other."""
    at = 0 if quoted else -1
    while True:
        if quoted:
            at = line.find(b'"', at)
            if at < 0:
                return True
            if line[at + 1 : at + 2] == b'"':
                at += 2
                continue
            at = line.find(b",", at)
            if at < 0:
                return False
        at = at + 1  # the start of a cell
        quoted = line[at : at + 1] == b'"'
        if quoted:
            at += 1
        else:
            at = line.find(b",", at)
            if at < 0:
                return False


def _cells(row: bytes) -> list[str]:
    """Raises RowError."""
    try:
        found = list(csv.reader(io.StringIO(row.decode("utf-8", "replace"), newline="")))
    except csv.Error:  # a cell of more than 131,072 characters
        raise RowError("row that is no CSV") from None
    return found[0] if len(found) == 1 else []
