"""`umit prepare peir_gross`: PEIR Gross, photographs of specimens with a sentence each (Pavlopoulos et al. 2019).

| file                                       | read as                                             |
| peir_gross.tsv, or                         | file name and caption, a tab between them           |
| peir_gross_captions.json                   | {file name: caption}                                |
| train_images.tsv, test_images.tsv          | the official split; may repeat the captions         |
| peir_gross_images/*.jpg                    | the images                                          |

The set is crawled by its user, and a crawl may end early: what is listed and not there is counted, and the numbers are
compared with the published ones. Without the split files, images are split by a hash of their name.
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
from data_pipelines.sources.catalogue import catalogue
from data_pipelines.sources.folder import split_of
from data_pipelines.sources.layout import LayoutError, refuse_packed
from data_pipelines.sources.make import Maker, RowError, plain
from data_pipelines.sources.source_files import (
    find,
    find_one,
    inside,
    load_json,
    missing,
    patient_of,
    read_picture,
    stamp,
)
from umit_jax.targets import text_target

NAME = "peir_gross"
CAPTIONS = ("peir_gross.tsv", "peir_gross_captions.json")
SPLITS = {"train": "train_images.tsv", "test": "test_images.tsv"}
_IMAGES = "peir_gross_images"


@dataclasses.dataclass(frozen=True)
class PeirGross:
    """captions: the file of captions. lists: {split: its file}, empty without an official split. A unit is
    (file name, split, why it is rejected or "")."""

    source: Path
    captions: Path
    lists: Mapping[str, Path]
    images: Path
    seed: int = 0
    name: str = NAME
    near: bool = True

    @property
    def rules(self) -> Rules:
        official = catalogue()[NAME].records
        return Rules(leaks="report", expected=official if self.lists else {"all/report": sum(official.values())})

    @property
    def options(self) -> Mapping[str, Any]:
        return {"seed": self.seed, "files": stamp(self.captions, *self.lists.values())}

    def units(self) -> list[tuple[str, str, str]]:
        """Raises LayoutError."""
        patient_of(self.source, "")  # makes the key before several workers want it
        listed = {split: dict.fromkeys(name for name, _ in _rows(file)) for split, file in self.lists.items()}
        units: list[tuple[str, str, str]] = []
        seen: set[str] = set()
        for name, _ in _rows(self.captions):
            splits = [split for split, names in listed.items() if name in names]
            reason = "listed twice" if name in seen else "in both split files" if len(splits) > 1 else ""
            if self.lists and not splits:
                reason = reason or "in no split file"
            split = splits[-1] if splits else split_of(name, self.seed)
            units.append((name, split, reason))
            seen.add(name)
        for split, names in listed.items():
            units += [(name, split, "") for name in names if name not in seen]
            seen.update(names)
        return units

    def records(self, unit: tuple[str, str, str]) -> Iterator[Record | Rejected]:
        name, split, reason = unit
        try:
            if reason:
                raise RowError(reason)
            yield self._record(name, split)
        except (RowError, MediaError) as error:
            yield Rejected(name or "line without a file name", str(error))

    def _record(self, name: str, split: str) -> Record:
        caption = next((text for file in (self.captions, *self.lists.values()) if (text := _texts(file).get(name))), "")
        if not caption:
            raise RowError("no caption")
        media = read_picture(inside(self.images, name), "XC")
        maker = Maker(NAME, catalogue()[NAME].license, self.source, self.seed)
        return maker.record(
            name,
            split=split,
            patient=name,
            task="report",
            language="en",
            topic="report",
            media=[media],
            question=maker.ask(name, "report", "specimen", "en"),
            target=text_target(caption),
            origin=f"{self.captions.name}, {name}",
        )


def converter(source: Path, *, images: Path | None = None, seed: int = 0) -> PeirGross:
    """images: the folder of the images where it is not beside the captions. Raises LayoutError."""
    captions = find_one(source, *CAPTIONS)
    lists = {split: found[0] for split, name in SPLITS.items() if (found := find(source, name))}
    if len(lists) == 1:
        raise missing(source, (f"both {SPLITS['train']} and {SPLITS['test']}",), lists.values())
    folder = images or captions.parent / _IMAGES
    if not folder.is_dir():
        refuse_packed(folder)
        raise missing(source, (f"a folder {_IMAGES}",))
    return PeirGross(source, captions, lists, folder, seed)


@functools.lru_cache(maxsize=4)
def _rows(file: Path) -> list[tuple[str, str]]:
    """(file name, caption or "") of each line or entry."""
    if file.suffix == ".json":
        entries = load_json(file)
        if not isinstance(entries, dict):
            raise LayoutError(f"{file}: expected file names with captions, found {type(entries).__name__}")
        return [(name.strip(), plain(caption)) for name, caption in entries.items()]
    lines = file.read_text(encoding="utf-8-sig", errors="replace").split("\n")  # a caption may hold other separators
    cells = [line.partition("\t") for line in lines if line.strip()]
    return [(name.strip(), plain(caption)) for name, _, caption in cells if name.strip().lower() != "filename"]


@functools.lru_cache(maxsize=4)
def _texts(file: Path) -> dict[str, str]:
    return {name: caption for name, caption in reversed(_rows(file)) if caption}
