"""`umit prepare pmc_oa`: PMC-OA, figures of open articles and their captions (Lin et al. 2023), for the first stage.

| file                                    | read as                                                               |
| pmc_oa_beta.jsonl                       | {image, caption}: a sub-figure with the caption of its whole figure   |
| pmc_oa.jsonl                            | the same with the sub-figure's part of the caption (found by a model) |
| images.zip, or the folder unpacked      | PMC123_Fig4_5.jpg: article 123, figure 4, sub-figure 5                |

A unit is an article: its captions, and pairs of its images whose captions can be compared (see compare). Neighbouring
sub-figures of a figure make pairs, and so do neighbouring figures. Articles are split by a hash of their number.
"""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from data_pipelines.media import MediaError
from data_pipelines.media.picture import picture
from data_pipelines.parts import Rejected
from data_pipelines.publish import Rules
from data_pipelines.record import Media, Record
from data_pipelines.sources.catalogue import catalogue
from data_pipelines.sources.compare import compared
from data_pipelines.sources.folder import split_of
from data_pipelines.sources.layout import LayoutError, one_of
from data_pipelines.sources.make import Maker, RowError, plain
from data_pipelines.sources.rows import Rows, parse_row, read_row
from data_pipelines.sources.source_files import find, inside, missing, patient_of, read_picture, stamp
from data_pipelines.sources.zip_files import ZipFiles
from umit_jax.targets import text_target

NAME = "pmc_oa"
FILES = {"beta": "pmc_oa_beta.jsonl", "aligned": "pmc_oa.jsonl"}
FOLDER = "caption_T060_filtered_top4_sep_v0_subfigures"
_NAME = re.compile(r"(PMC\d+)_(.+)_(\d+)\.\w+")

Unit = tuple[tuple[int, int, int], ...]  # (first byte, bytes, number) of each row of an article


@dataclasses.dataclass(frozen=True)
class Shown:
    """A sub-figure with its caption. figure: article and figure, "" where the name does not say."""

    key: str
    image: str
    figure: str
    caption: str
    media: Media


@dataclasses.dataclass(frozen=True)
class PmcOa:
    """images: a folder or a zip archive."""

    source: Path
    file: Path
    images: Path
    seed: int = 0
    name: str = NAME
    near: bool = True

    @property
    def rules(self) -> Rules:
        entry = catalogue()[NAME]
        return Rules(leaks="report", expected=entry.records, within=entry.within)

    @property
    def options(self) -> Mapping[str, Any]:
        return {"seed": self.seed, "images": self.images.name, "files": stamp(self.file)}

    def units(self) -> "Articles":
        """Raises LayoutError, for a damaged archive too."""
        patient_of(self.source, "")  # makes the key before several workers want it
        if not self.images.is_dir():
            _archive(self.images)
        return Articles(self.file)

    def records(self, unit: Unit) -> Iterator[Record | Rejected]:
        shown: list[Shown] = []
        keys: dict[str, int] = {}
        for start, length, number in unit:
            name = ""
            try:
                row = read_row(self.file, start, length)
                name = plain(row.get("image"))
                stem = Path(name).stem
                keys[stem] = keys.get(stem, 0) + 1
                key = stem if keys[stem] == 1 else f"{stem}/{keys[stem]}"
                shown.append(self._shown(key, name, plain(row.get("caption"))))
            except (RowError, MediaError) as error:
                yield Rejected(f"row {number}" + (f", {name}" if name else ""), str(error))
                continue
            label_kind = "model" if "alignment_type" in row else "manual"
            yield self._record(key, "caption", [shown[-1]], shown[-1].caption, label_kind)
        for first, second, text in pairs(shown):
            yield self._record(f"pair/{first.key}+{second.key}", "comparison", [first, second], text, "templated")

    def _shown(self, key: str, name: str, caption: str) -> Shown:
        if not caption:
            raise RowError("no caption")
        if self.images.is_dir():
            media = read_picture(inside(self.images, name))
        else:
            media = picture(_archive(self.images).read(Path(name).name), "OT")
        found = _NAME.fullmatch(name)
        return Shown(key, name, f"{found[1]}_{found[2]}" if found else "", caption, media)

    def _record(self, key: str, task: str, shown: Sequence[Shown], answer: str, label_kind: str) -> Record:
        maker = Maker(NAME, catalogue()[NAME].license, self.source, self.seed)
        article = _article(shown[0].image)
        return maker.record(
            key,
            split=split_of(article, self.seed),
            patient=article,
            task=task,
            language="en",
            topic=task,
            media=[one.media for one in shown],
            question=maker.ask(key, task, task, "en"),
            target=text_target(answer),
            origin=f"{self.file.name}, {' and '.join(one.image for one in shown)}",
            label_kind=label_kind,
        )


def converter(source: Path, *, images: Path | None = None, subset: Sequence[str] = (), seed: int = 0) -> PmcOa:
    """images: folder or archive of the images where it is not beside the captions. subset: "beta" or "aligned", where
    both files are there. Raises LayoutError."""
    for value in subset:
        one_of("subset", value, list(catalogue()[NAME].subsets))
    names = [FILES[value] for value in subset] or list(FILES.values())
    files = [file for name in names for file in find(source, name)]
    if not files:
        raise missing(source, names)
    if len(files) > 1:
        raise LayoutError(f"--subset: expected one of {', '.join(FILES)}, because {source} has the files of both")
    beside = [files[0].parent / FOLDER, files[0].parent / "images" / FOLDER, files[0].parent / "images"]
    where = [images] if images else [f for f in beside if f.is_dir()] + find(source, "images.zip")
    if not where:
        raise missing(source, ("images.zip", FOLDER))
    return PmcOa(source, files[0], where[0], seed)


class Articles(Sequence[Unit]):
    """The rows of each article, articles in the order of their first row; twenty-four bytes a row."""

    def __init__(self, file: Path) -> None:
        """Raises LayoutError for a file whose first row has no image or no caption."""
        rows = Rows([file])
        spans = ((start, length, number) for _, start, length, number in rows)
        places, keys = np.empty((len(rows), 2), np.int64), np.empty(len(rows), np.uint64)
        with file.open("rb") as opened:
            for start, length, number in spans:
                places[number] = start, length
                opened.seek(start)
                keys[number] = _row_key(file, opened.read(length), number)
        order = np.argsort(keys, kind="stable")
        edges = np.flatnonzero(np.diff(keys[order])) + 1
        starts = np.concatenate([[0], edges]).astype(np.int64) if len(rows) else np.empty(0, np.int64)
        ends = np.concatenate([edges, [len(rows)]]).astype(np.int64) if len(rows) else starts
        by_first = np.argsort(order[starts], kind="stable") if len(rows) else starts
        self._places, self._order = places, order
        self._starts, self._ends = starts[by_first], ends[by_first]

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Unit: ...

    @overload
    def __getitem__(self, index: slice) -> list[Unit]: ...

    def __getitem__(self, index: int | slice) -> Unit | list[Unit]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        numbers = self._order[self._starts[index] : self._ends[index]]
        return tuple((int(self._places[n, 0]), int(self._places[n, 1]), int(n)) for n in numbers)


def _row_key(file: Path, data: bytes, number: int) -> int:
    """A number for the row's article, or for the row itself where it names none."""
    try:
        row = parse_row(data)
    except RowError:
        row = {}
    if number == 0 and row and not {"image", "caption"} <= set(row):
        raise LayoutError(f"{file}: expected rows with image, caption, found {', '.join(row)}")
    text = _article(plain(row.get("image"))) or f"row {number}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _article(image: str) -> str:
    found = _NAME.fullmatch(image)
    return found[1] if found else Path(image).stem


def pairs(shown: Sequence[Shown]) -> Iterator[tuple[Shown, Shown, str]]:
    """Pairs of an article's images, each with what it is answered with. In a figure the first sub-figure goes with the
    second, the third with the fourth, ..., once where they share one caption; figures alike, by their first."""
    figures: dict[str, list[Shown]] = {}
    for one in shown:
        if one.figure:
            figures.setdefault(one.figure, []).append(one)
    for parts in figures.values():
        told: set[str] = set()
        for first, second in zip(parts[::2], parts[1::2], strict=False):
            text = compared(first.caption, second.caption, "en", one_figure=True)
            if text and text not in told and first.image != second.image:
                told.add(text)
                yield first, second, text
    heads = [parts[0] for parts in figures.values()]
    for first, second in zip(heads[::2], heads[1::2], strict=False):
        text = compared(first.caption, second.caption, "en", one_figure=False)
        if text:
            yield first, second, text


@functools.lru_cache(maxsize=1)
def _archive(path: Path) -> ZipFiles:
    return ZipFiles(path)
