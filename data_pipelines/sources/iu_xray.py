"""`umit prepare iu_xray`: IU X-Ray, chest radiographs and their reports (Demner-Fushman et al. 2016).

| file                              | read as                                                                      |
| annotation.json, images/ID/*.png  | R2Gen's layout: {split: [{id, report, image_path}]} with its own splits      |
| ecgen-radiology/*.xml,            | instead of both, the OpenI originals: FINDINGS, then IMPRESSION, and every   |
| NLMCXR_png/*.png                  | parentImage; split by a hash of the patient                                  |

All images of a study, frontal and lateral, are in one record, in the order they are listed. What the source has
de-identified (XXXX) stays so.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from data_pipelines.inputs import note
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
    folders,
    inside,
    load_json,
    missing,
    patient_of,
    read_picture,
    stamp,
)
from umit_jax.targets import text_target

NAME = "iu_xray"
SPLITS = {"train": "train", "val": "validation", "test": "test"}
_SECTIONS = ("FINDINGS", "IMPRESSION")


@dataclasses.dataclass(frozen=True)
class IuXray:
    """annotation: R2Gen's file, or None for the originals, whose XML files are then in `reports`. A unit is
    (split, row, why it is rejected or "") of the one, ("", name of a file, "") of the other."""

    source: Path
    annotation: Path | None
    reports: Path
    images: Path
    seed: int = 0
    name: str = NAME
    near: bool = True

    @property
    def rules(self) -> Rules:
        layout = "original" if self.annotation is None else "r2gen"
        return Rules(leaks="report", expected=catalogue()[NAME].layouts[layout])

    @property
    def options(self) -> Mapping[str, Any]:
        return {"seed": self.seed, "files": stamp(*([] if self.annotation is None else [self.annotation]))}

    def units(self) -> list[tuple[str, str, str]]:
        """Raises LayoutError for an annotation file of another form."""
        refuse_packed(self.images)
        patient_of(self.source, "")  # makes the key before several workers want it
        if self.annotation is None:
            return [("", path.name, "") for path in sorted(_below(self.reports, ".xml"), key=_number)]
        rows = _annotation(self.annotation)
        units, seen = [], set()
        for split in SPLITS:
            for i, row in enumerate(rows.get(split, ())):
                study = plain(row.get("id")) if isinstance(row, dict) else ""
                units.append((split, str(i), "id is used already" if study in seen else ""))
                seen.update({study} - {""})
        return units

    def records(self, unit: tuple[str, str, str]) -> Iterator[Record | Rejected]:
        split, item, reason = unit
        try:
            if reason:
                raise RowError(reason)
            if self.annotation is None:
                yield self._from_xml(self.reports / item)
            else:
                yield self._from_row(split, _annotation(self.annotation)[split][int(item)])
        except (RowError, MediaError) as error:
            yield Rejected(f"{split}, row {item}" if split else item, str(error))

    def _from_row(self, split: str, row: Any) -> Record:
        if not isinstance(row, dict):
            raise RowError("row is no object")
        names, study = row.get("image_path"), plain(row.get("id"))
        if not study or not isinstance(names, list):
            raise RowError("no id, or no list of images")
        origin = f"annotation.json, {split} {study}"
        return self._record(study, SPLITS[split], study.split("_")[0], names, plain(row.get("report")), origin)

    def _from_xml(self, path: Path) -> Record:
        note(path)
        data = path.read_bytes()
        if b"<!ENTITY" in data or b"<!DOCTYPE" in data:
            raise RowError("XML that declares entities")
        try:
            root = ElementTree.fromstring(data)
        except (ElementTree.ParseError, LookupError, ValueError):  # an encoding that does not exist, or is not read
            raise RowError("damaged XML") from None
        sections = {str(e.get("Label")).upper(): plain("".join(e.itertext())) for e in root.iter("AbstractText")}
        report = " ".join(filter(None, (sections.get(label, "") for label in _SECTIONS)))
        names = [f"{plain(e.get('id'))}.png" for e in root.iter("parentImage") if plain(e.get("id"))]
        patient = f"CXR{path.stem}"
        return self._record(
            patient, split_of(patient, self.seed), patient, list(dict.fromkeys(names)), report, f"report {path.name}"
        )

    def _record(self, key: str, split: str, patient: str, names: Sequence[Any], report: str, origin: str) -> Record:
        if not report:
            raise RowError("no findings and no impression" if self.annotation is None else "no report")
        if not names:
            raise RowError("no image named")
        media = [read_picture(inside(self.images, str(name)), "DX") for name in names]
        maker = Maker(NAME, catalogue()[NAME].license, self.source, self.seed)
        return maker.record(
            key,
            split=split,
            patient=patient,
            task="report",
            language="en",
            topic="report",
            media=media,
            question=maker.ask(key, "report", "report", "en"),
            target=text_target(report),
            origin=origin,
        )


def converter(source: Path, *, images: Path | None = None, seed: int = 0) -> IuXray:
    """images: the folder of the images where they are not beside the texts. Raises LayoutError."""
    annotation = find(source, "annotation.json")
    reports = find(source, "ecgen-radiology/*.xml", "*.xml")
    if annotation:
        return IuXray(source, annotation[0], source, images or annotation[0].parent / "images", seed)
    if not reports:
        for folder in (source, *source.glob("*/")):
            refuse_packed(folder / "ecgen-radiology", archives=("NLMCXR_reports.tgz",))
        raise missing(source, ("annotation.json", "ecgen-radiology/*.xml"))
    beside = [folder / name for folder in folders(source) for name in ("NLMCXR_png", "images")]
    pictures = images or next((folder for folder in (*beside[:2], source, *beside[2:]) if _has_png(folder)), None)
    if pictures is None:
        refuse_packed(source / "NLMCXR_png", source / "images")
        raise missing(source, ("NLMCXR_png/*.png",))
    return IuXray(source, None, reports[0].parent, pictures, seed)


def _has_png(folder: Path) -> bool:
    return folder.is_dir() and bool(_below(folder, ".png"))


def _below(folder: Path, suffix: str) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix.lower() == suffix]


@functools.lru_cache(maxsize=2)
def _annotation(file: Path) -> dict[str, list[Any]]:
    rows = load_json(file)
    if not isinstance(rows, dict) or not all(isinstance(rows.get(split, []), list) for split in SPLITS):
        raise LayoutError(f"{file}: expected lists of studies under {', '.join(SPLITS)}, found {type(rows).__name__}")
    if not any(rows.get(split) for split in SPLITS):
        raise LayoutError(f"{file}: expected lists of studies under {', '.join(SPLITS)}, found {', '.join(rows)}")
    return rows


def _number(path: Path) -> tuple[int, str]:
    return int(re.sub(r"\D", "", path.stem) or 0), path.name
