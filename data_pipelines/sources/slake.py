"""`umit prepare slake`: SLAKE, bilingual radiology questions and organ boxes (Liu et al. 2021).

| file                                     | read as                                                               |
| train.json, validate.json (on the Hub    | questions in English and Chinese; one file a split                    |
| validation.json), test.json              |                                                                       |
| imgs/xmlabN/source.jpg                   | the image, which is all that stands for a patient                     |
| imgs/xmlabN/detection.json               | [{name: [x, y, width, height]}, ...] in pixels; a name may come again |

Splits are by image. A detection question asks for one name and is answered with all of its boxes; when one of them is
unusable the question is rejected, because the rest would not be the whole answer.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.media import MediaError
from data_pipelines.parts import Rejected
from data_pipelines.publish import Rules
from data_pipelines.record import LANGUAGES, Record
from data_pipelines.sources.catalogue import catalogue
from data_pipelines.sources.layout import LayoutError, one_of, refuse_packed
from data_pipelines.sources.make import Maker, RowError, boxes, kind_of, numbers, plain, vqa
from data_pipelines.sources.source_files import (
    find_one,
    inside,
    load_json,
    load_rows,
    missing,
    patient_of,
    read_picture,
    stamp,
)

NAME = "slake"
FILES = {"train": ("train.json",), "validation": ("validate.json", "validation.json"), "test": ("test.json",)}
SUBSETS = tuple(catalogue()[NAME].subsets)
_MODALITIES = {"CT": "CT", "MRI": "MR", "X-RAY": "DX"}


@dataclasses.dataclass(frozen=True)
class Slake:
    """subset: which of SUBSETS."""

    source: Path
    root: Path  # where train.json is
    subset: tuple[str, ...] = SUBSETS
    seed: int = 0
    name: str = NAME
    near: bool = True

    @property
    def rules(self) -> Rules:
        entry = catalogue()[NAME]
        expected = {key: sum(entry.subsets[x].get(key, 0) for x in self.subset) for key in entry.records}
        return Rules(leaks="report", expected=expected)

    @property
    def options(self) -> Mapping[str, Any]:
        return {"seed": self.seed, "subset": list(self.subset), "files": stamp(*self._files().values())}

    def _files(self) -> dict[str, Path]:
        """{split: its file}"""
        found = {split: [self.root / name for name in names] for split, names in FILES.items()}
        return {split: next((path for path in paths if path.is_file()), paths[0]) for split, paths in found.items()}

    def units(self) -> list[tuple[str, str, int, str]]:
        """(split, "", number of the row, why it is rejected or "") of a question, and
        (split, folder, 0, modality) of an image with boxes. Raises LayoutError."""
        refuse_packed(self.root / "imgs")
        if not (self.root / "imgs").is_dir():
            raise missing(self.root, ("a folder imgs",))
        patient_of(self.source, "")  # makes the key before several workers want it
        units, seen = [], set()
        images: dict[str, tuple[str, str]] = {}
        for split, file in self._files().items():
            for i, row in enumerate(load_rows(file)):
                if isinstance(row, dict):
                    image = plain(row.get("img_name")).split("/")[0]
                    images.setdefault(image, (split, _modality(row)))
                    qid, language = plain(row.get("qid")), plain(row.get("q_lang"))
                    reason = "no qid, or one that is used already" if not qid or qid in seen else ""
                    reason = reason or ("" if language in LANGUAGES else "unknown q_lang")
                    seen.add(qid)
                    if language in LANGUAGES and language not in self.subset:
                        continue
                else:
                    reason = "row is no object"
                if set(LANGUAGES) & set(self.subset):
                    units.append((split, "", i, reason))
        if "boxes" in self.subset:
            folders = sorted((path.name for path in (self.root / "imgs").glob("*") if path.is_dir()), key=_number)
            units += [
                (split, name, 0, modality) for name in folders for split, modality in [images.get(name, ("", ""))]
            ]
        return units

    def records(self, unit: tuple[str, str, int, str]) -> Iterator[Record | Rejected]:
        split, folder, number, note = unit
        if folder:
            yield from self._boxes(folder, split, note)
            return
        row = load_rows(self._files()[split])[number]
        try:
            if note:
                raise RowError(note)
            yield self._question(row, split)
        except (RowError, MediaError) as error:
            qid = plain(row.get("qid")) if isinstance(row, dict) else ""
            yield Rejected(f"{split}, row {number}" + (f", qid {qid}" if qid else ""), str(error))

    def _question(self, row: Mapping[str, Any], split: str) -> Record:
        language, name = plain(row["q_lang"]), plain(row.get("img_name"))
        question, target = vqa(plain(row.get("question")), plain(row.get("answer")), language)
        return self._maker.record(
            plain(row["qid"]),
            split=split,
            patient=name.split("/")[0],
            task="vqa",
            language=language,
            topic=f"{kind_of(target)}/{plain(row.get('content_type')) or 'other'}",
            media=[read_picture(inside(self.root / "imgs", name), _modality(row))],
            question=question,
            target=target,
            origin=f"{self._files()[split].name}, qid {plain(row['qid'])}",
        )

    @property
    def _maker(self) -> Maker:
        return Maker(NAME, catalogue()[NAME].license, self.source, self.seed)

    def _boxes(self, folder: str, split: str, modality: str) -> Iterator[Record | Rejected]:
        """A record for each name in a folder's detection.json."""
        try:
            if not split:
                raise RowError("image without questions, so in no split")
            named = _by_name(inside(self.root / "imgs", f"{folder}/detection.json"))
            media = read_picture(inside(self.root / "imgs", f"{folder}/source.jpg"), modality)
        except (RowError, MediaError, LayoutError) as error:
            reason = "detection.json is no JSON" if isinstance(error, LayoutError) else str(error)
            yield Rejected(f"{folder}, boxes", reason.replace("image file is", "source.jpg or detection.json is"))
            return
        for name, found in named.items():
            key = f"boxes/{folder}/{name}"
            try:
                target = boxes(media, [(name, _corners(box)) for box in found])
            except RowError as error:
                yield Rejected(f"{folder}, boxes of {name}", str(error))
                continue
            yield self._maker.record(
                key,
                split=split,
                patient=folder,
                task="detection",
                language="en",
                topic=f"box/{name}",
                media=[media],
                question=self._maker.ask(key, "detection", "box2d", "en", name),
                target=target,
                origin=f"imgs/{folder}/detection.json",
            )


def converter(source: Path, *, subset: Sequence[str] = (), seed: int = 0) -> Slake:
    """Raises LayoutError where a file of FILES is missing; every subset has questions or images of all splits."""
    for value in subset:
        one_of("subset", value, SUBSETS)
    root = find_one(source, "train.json").parent
    for names in FILES.values():
        if not any((root / name).is_file() for name in names):
            raise missing(root, names)
    return Slake(source, root, tuple(x for x in SUBSETS if x in subset) or SUBSETS, seed)


def _by_name(file: Path) -> dict[str, list[Any]]:
    """{name: its boxes} in the file's order. Raises RowError where there are none, LayoutError for what is no JSON."""
    named: dict[str, list[Any]] = {}
    rows = load_json(file, object_pairs_hook=tuple)  # objects keep the keys that come twice
    for row in rows if isinstance(rows, list) else [rows]:
        if not isinstance(row, tuple):
            raise RowError("detection.json is no list of objects")
        for name, box in row:
            if not plain(name):
                raise RowError("box without a name")
            named.setdefault(plain(name), []).append(box)
    if not named:
        raise RowError("no box in the image")
    return named


def _corners(box: Any) -> list[float]:
    """Corners of [x, y, width, height]."""
    x, y, width, height = numbers(box, (4,))
    return [x, y, x + width, y + height]


def _modality(row: Mapping[str, Any]) -> str:
    return _MODALITIES.get(plain(row.get("modality")).upper(), "OT")


def _number(folder: str) -> tuple[int, str]:
    digits = re.sub(r"\D", "", folder)
    return int(digits or 0), folder
