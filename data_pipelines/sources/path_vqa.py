"""`umit prepare path_vqa`: PathVQA, questions about pathology images (He et al. 2020).

| file                                   | read as                                                                 |
| split/qas/{train,val,test}/*_qa.pkl    | a list of {image, question, answer}                                     |
| split/images/{train,val,test}/*.jpg    | their images, some of them CMYK                                         |
| data/SPLIT-*.parquet                   | instead of both, the copy on the Hub (flaviagiammarino/path-vqa)        |

The two are split differently and have their own published counts. Pickles are read by plain_pickle, which runs nothing.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.media import MediaError
from data_pipelines.parts import Rejected
from data_pipelines.publish import Rules
from data_pipelines.record import Record
from data_pipelines.sources import hub
from data_pipelines.sources.catalogue import catalogue
from data_pipelines.sources.layout import LayoutError, refuse_packed
from data_pipelines.sources.make import Maker, RowError, plain, topic_of, vqa
from data_pipelines.sources.plain_pickle import load_plain
from data_pipelines.sources.source_files import find, inside, missing, patient_of, read_picture, stamp

NAME = "path_vqa"
SPLITS = {"train": "train", "val": "validation", "test": "test"}
_KEYS = ("image", "question", "answer")
_PICKLES = tuple(f"{folder}qas/{split}/{split}_qa.pkl" for split in SPLITS for folder in ("split/", ""))


@dataclasses.dataclass(frozen=True)
class PathVqa:
    """The original download. root: the folder of qas and images. A unit is (split in its own words, row)."""

    source: Path
    root: Path
    seed: int = 0
    name: str = NAME
    near: bool = True

    @property
    def rules(self) -> Rules:
        return Rules(leaks="report", expected=catalogue()[NAME].layouts["original"])

    @property
    def options(self) -> Mapping[str, Any]:
        return {"seed": self.seed, "files": stamp(*self.files.values())}

    @property
    def files(self) -> dict[str, Path]:
        """{split in its own words: its questions}"""
        return {split: self.root / "qas" / split / f"{split}_qa.pkl" for split in SPLITS}

    def units(self) -> list[tuple[str, int]]:
        """Raises LayoutError for a file that is not a list of questions."""
        refuse_packed(self.root / "images")
        for split in SPLITS:
            refuse_packed(self.root / "images" / split)
        patient_of(self.source, "")  # makes the key before several workers want it
        return [(split, i) for split, file in self.files.items() for i in range(len(_rows(file)))]

    def records(self, unit: tuple[str, int]) -> Iterator[Record | Rejected]:
        split, number = unit
        row = _rows(self.files[split])[number]
        try:
            if not isinstance(row, dict):
                raise RowError("row is no dict")
            yield self._record(split, number, row)
        except (RowError, MediaError) as error:
            yield Rejected(f"{split}, row {number}", str(error))

    def _record(self, split: str, number: int, row: Mapping[str, Any]) -> Record:
        name = plain(row.get("image"))
        question, target = vqa(plain(row.get("question")), plain(row.get("answer")), "en")
        file = inside(self.root / "images" / split, name if name.endswith(".jpg") or not name else f"{name}.jpg")
        return Maker(NAME, catalogue()[NAME].license, self.source, self.seed).record(
            f"{SPLITS[split]}/{number}",
            split=SPLITS[split],
            patient=f"{split}/{file.name}",
            task="vqa",
            language="en",
            topic=topic_of(question, target),
            media=[read_picture(file)],
            question=question,
            target=target,
            origin=f"{split}_qa.pkl, row {number}",
        )


def converter(source: Path, *, seed: int = 0) -> "PathVqa | hub.HubVqa":
    """Raises LayoutError where neither layout is there, or a file of it is missing."""
    pickles = find(source, *_PICKLES)
    if pickles:
        made = PathVqa(source, pickles[0].parents[2], seed)
        for file in made.files.values():
            if not file.is_file():
                raise missing(source, (file.relative_to(source).as_posix(),), pickles)
        return made
    if hub.files(source):
        hub.check(source, list(SPLITS.values()))
        return hub.HubVqa(NAME, source, catalogue()[NAME].layouts["hub"], seed)
    for folder in (source, *source.glob("*/")):
        refuse_packed(folder / "split")
    raise missing(source, ("split/qas/train/train_qa.pkl", "data/train-*.parquet"))


@functools.lru_cache(maxsize=3)
def _rows(file: Path) -> list[Any]:
    rows = load_plain(file)
    if not isinstance(rows, list) or not rows:
        raise LayoutError(f"{file}: expected a list of questions, found {type(rows).__name__}")
    first = rows[0]
    if not isinstance(first, dict) or not set(_KEYS) <= set(first):
        there = ", ".join(map(str, first)) if isinstance(first, dict) else type(first).__name__
        raise LayoutError(f"{file}: expected rows with {', '.join(_KEYS)}, found {there}")
    return rows
