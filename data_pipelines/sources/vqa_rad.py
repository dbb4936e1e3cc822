"""`umit prepare vqa_rad`: VQA-RAD, radiology questions (Lau et al. 2018, https://osf.io/89kps/).

| file                                       | read as                                                             |
| VQA_RAD Dataset Public.json                | the questions; test where phrase_type begins with "test_"           |
| VQA_RAD Image Folder/synpic*.jpg           | their images                                                        |
| data/train-*.parquet, data/test-*.parquet  | instead of both, the copy on the Hub (flaviagiammarino/vqa-rad)     |

Split by question: nearly every test image is a training image too, which the manifest lists as leaks. A training row
that repeats image, question and answer of another one, or of a test row, is rejected, as in the copy on the Hub.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.media import MediaError
from data_pipelines.parts import Rejected
from data_pipelines.publish import Rules
from data_pipelines.record import Record
from data_pipelines.sources import hub
from data_pipelines.sources.catalogue import catalogue
from data_pipelines.sources.layout import refuse_packed
from data_pipelines.sources.make import Maker, RowError, kind_of, plain, vqa
from data_pipelines.sources.source_files import find, find_one, inside, load_rows, patient_of, read_picture, stamp

NAME = "vqa_rad"
JSON, IMAGES = "VQA_RAD Dataset Public.json", "VQA_RAD Image Folder"
_PHRASES = {"freeform": "train", "para": "train", "test_freeform": "test", "test_para": "test"}


@dataclasses.dataclass(frozen=True)
class VqaRad:
    """The original download. A unit is (number of the row, why it is rejected or "")."""

    source: Path
    file: Path
    seed: int = 0
    name: str = NAME
    near: bool = True

    @property
    def rules(self) -> Rules:
        return Rules(leaks="report", expected=catalogue()[NAME].records)

    @property
    def options(self) -> Mapping[str, Any]:
        return {"seed": self.seed, "files": stamp(self.file)}

    def units(self) -> list[tuple[int, str]]:
        refuse_packed(self.file.parent / IMAGES)
        patient_of(self.source, "")  # makes the key before several workers want it
        rows = load_rows(self.file)
        test = {_triplet(row) for row in rows if _split(row) == "test"}
        seen: set[tuple[str, ...]] = set()
        ids: set[str] = set()
        units = []
        for i, row in enumerate(rows):
            reason = ""
            if not isinstance(row, dict):
                reason = "row is no object"
            elif not plain(row.get("qid")) or plain(row.get("qid")) in ids:
                reason = "no qid, or one that is used already"
            elif _split(row) == "":
                reason = "unknown phrase_type"
            elif _split(row) == "train":
                triplet = _triplet(row)
                reason = "question is in the test split" if triplet in test else "repeated question"
                reason = reason if triplet in test or triplet in seen else ""
                seen.add(triplet)
            if not reason:
                ids.add(plain(row["qid"]))
            units.append((i, reason))
        return units

    def records(self, unit: tuple[int, str]) -> Iterator[Record | Rejected]:
        number, reason = unit
        row = load_rows(self.file)[number]
        try:
            if reason:
                raise RowError(reason)
            yield self._record(row)
        except (RowError, MediaError) as error:
            qid = plain(row.get("qid")) if isinstance(row, dict) else ""
            yield Rejected(f"row {number}" + (f", qid {qid}" if qid else ""), str(error))

    def _record(self, row: Mapping[str, Any]) -> Record:
        image = plain(row.get("image_name"))
        question, target = vqa(plain(row.get("question")), plain(row.get("answer")), "en")
        media = read_picture(inside(self.file.parent / IMAGES, image))
        types = "+".join(sorted(t for t in plain(row.get("question_type")).upper().replace(" ", "").split(",") if t))
        maker = Maker(NAME, catalogue()[NAME].license, self.source, self.seed)
        return maker.record(
            plain(row["qid"]),
            split=_split(row),
            patient=plain(row.get("image_case_url")) or image,
            task="vqa",
            language="en",
            topic=f"{kind_of(target)}/{types or 'OTHER'}",
            media=[media],
            question=question,
            target=target,
            origin=f"{JSON}, qid {plain(row['qid'])}",
        )


def converter(source: Path, *, seed: int = 0) -> "VqaRad | hub.HubVqa":
    """Raises LayoutError where neither layout is there, or a file of it is missing."""
    if not find(source, JSON) and hub.files(source):
        hub.check(source, ("train", "test"))
        return hub.HubVqa(NAME, source, catalogue()[NAME].records, seed)
    return VqaRad(source, find_one(source, JSON, "data/*.parquet"), seed)


def _split(row: Any) -> str:
    return _PHRASES.get(plain(row.get("phrase_type")).lower(), "") if isinstance(row, dict) else ""


def _triplet(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(plain(row.get(key)) for key in ("image_name", "question", "answer"))
