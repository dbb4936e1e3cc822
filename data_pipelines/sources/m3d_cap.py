"""`umit prepare m3d_cap`: CT volumes of M3D-Cap and what was written about them -> reports.

| file                              | content                                                                       |
| M3D_Cap.json                      | {train, validation, test: [{image, text}]}: the official split                |
| {ct_case,ct_quizze}/{case}/       | a volume or several (see m3d_volume), and text.txt                            |

The list names the files of the authors' preparation; it may lie beside the folders of slices, as on the Hub.
Without the list, cases fall to train, validation and test (80, 10, 10 in a hundred) by a hash and the seed. Of a text,
what follows `study_findings:`, up to a `discussion:`, is the report; where that is next to nothing, what follows
`discussion:`; else all of it.
Cases are known to come again under ct_quizze: see leaks and duplicates in the manifest.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from data_pipelines.media import MediaError
from data_pipelines.parts import Rejected
from data_pipelines.publish import Rules
from data_pipelines.record import SPLITS, Record
from data_pipelines.sources.catalogue import catalogue
from data_pipelines.sources.folder import split_of
from data_pipelines.sources.layout import LayoutError
from data_pipelines.sources.m3d_volume import (
    PARTS,
    ROOTS,
    find_cases,
    find_volume,
    is_volume,
    plain_name,
    show_volume,
    stem,
    tail_of,
)
from data_pipelines.sources.make import Maker, plain
from data_pipelines.sources.source_files import find, inside, load_json, patient_of
from umit_jax.targets import text_target

NAME = "m3d_cap"
_MARKS = ("study_findings:", "discussion:")
_SHORTEST = 5  # characters that are no spaces


@dataclasses.dataclass(frozen=True)
class Unit:
    """One volume, by its path from ct_case or ct_quizze on, and its text. reason: why it is rejected, or ""."""

    split: str
    image: str
    text: str
    reason: str = ""

    @property
    def key(self) -> str:
        return self.image.removesuffix(".npy")


@dataclasses.dataclass(frozen=True)
class M3dCapConverter:
    """images: the folder of ct_case and ct_quizze. listed: M3D_Cap.json, if there is one."""

    source: Path
    images: Path
    listed: Path | None
    seed: int
    name: str = NAME
    near: bool = True

    @property
    def options(self) -> Mapping[str, Any]:
        return {"seed": self.seed, "listed": self.listed is not None}

    @property
    def rules(self) -> Rules:
        entry = catalogue()[NAME]
        return Rules(leaks="report", expected=entry.records if self.listed else {}, within=entry.within)

    def units(self) -> list[Unit]:
        """Raises LayoutError and OSError."""
        patient_of(self.source, "")  # the key is there before the workers are
        units = list(self._from_list(self.listed) if self.listed else self._from_folders())
        if not units:
            raise LayoutError(f"{self.images}: no M3D_Cap.json, and no ct_case or ct_quizze with volumes")
        return units

    def _from_list(self, listed: Path) -> Iterator[Unit]:
        lists = load_json(listed)
        if not isinstance(lists, dict) or not all(isinstance(lists.get(split), list) for split in SPLITS):
            raise LayoutError(f"{listed}: expected the lists {', '.join(SPLITS)}")
        seen: set[str] = set()
        for split in SPLITS:
            for i, entry in enumerate(lists[split]):
                try:
                    image, text = tail_of(entry["image"]), tail_of(entry["text"])
                except (KeyError, TypeError, AttributeError):
                    raise LayoutError(f"{listed}: {split} {i}: expected image and text") from None
                yield Unit(split, image, text, "volume is listed twice" if image in seen else "")
                seen.add(image)

    def _from_folders(self) -> Iterator[Unit]:
        for part in PARTS:
            cases = {path.name: path for root in ROOTS[::-1] for path in (self.images / root / part).glob("*/")}
            for case in sorted(cases):
                for path in sorted(cases[case].iterdir()):
                    if is_volume(path):
                        name = f"{part}/{case}/{plain_name(stem(path))}.npy"
                        split = split_of(f"{part}/{case}", self.seed)
                        yield Unit(split, name, f"{part}/{case}/text.txt")

    def records(self, unit: Unit) -> Iterator[Record | Rejected]:
        try:
            if unit.reason:
                raise MediaError(unit.reason)
            text = self._text(unit.text)
            media = show_volume(find_volume(self.images, unit.image))
        except MediaError as error:
            yield Rejected(f"{NAME}/{unit.key}", error.reason)
            return
        maker = Maker(NAME, catalogue()[NAME].license, self.source, self.seed)
        yield maker.record(
            unit.key,
            split=unit.split,
            patient=str(PurePosixPath(unit.image).parent),
            task="report",
            language="en",
            topic="report",
            media=(media,),
            question=maker.ask(unit.key, "report", "report", "en"),
            target=text_target(text),
            origin=unit.image,
        )

    def _text(self, tail: str) -> str:
        for root in ROOTS:
            try:
                path = inside(self.images / root, tail)
            except MediaError:
                continue
            text = findings(path.read_text(encoding="utf-8", errors="replace"))
            if not text:
                raise MediaError("no text")
            return text
        raise MediaError("text file is missing")


def converter(source: Path, *, images: Path | None = None, seed: int = 0) -> M3dCapConverter:
    """images: the folder of ct_case and ct_quizze, or one above it, where that is not `source`. seed: of the split,
    where there is no list, and of the wordings."""
    listed = find(source, "M3D_Cap.json")
    return M3dCapConverter(source, find_cases(images or source), listed[0] if listed else None, seed)


def findings(text: str) -> str:
    """The part of a case's text that describes the images, on one line."""
    for mark, other in (_MARKS, _MARKS[::-1]):
        _, found, after = text.partition(mark)
        after = after.partition(other)[0]
        if found and len("".join(after.split())) >= _SHORTEST:
            return plain(after)
    return plain(text) if len("".join(text.split())) >= _SHORTEST else ""
