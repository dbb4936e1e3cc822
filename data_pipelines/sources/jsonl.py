"""`umit prepare jsonl`: your own training files, one or a folder of them, in the forms of conversations.py -> records.

| truth                                             | found as                                              |
| boxes, a point                                    | ms-swift's objects, or box tokens (objects.py)        |
| options                                           | numbered last lines of the question, one of which is  |
|                                                   | the answer: a classification from 0, else from 1      |
| text                                              | everything else                                       |

A row may state `task`, `split`, `language` and `patient`. Without a split of its own it takes the one its file is named
for, and else one by a hash of the patient, or of the first image. Images are looked for beside the file, or in images.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.media import MediaError
from data_pipelines.parts import Rejected
from data_pipelines.prompts import AnswerError
from data_pipelines.publish import Rules
from data_pipelines.record import LANGUAGES, MEDIA_TOKEN, Record
from data_pipelines.sources.conversations import Talk, language_of, listed_options, read_talk
from data_pipelines.sources.folder import split_of
from data_pipelines.sources.layout import one_of
from data_pipelines.sources.make import Maker, RowError, plain, topic_of
from data_pipelines.sources.objects import placed, said_anew
from data_pipelines.sources.rows import Rows, Span, read_row
from data_pipelines.sources.source_files import inside, missing, patient_of, read_picture, stamp
from umit_jax.batch import TASKS
from umit_jax.targets import Target, TargetError, options_target, text_target

NAME = "jsonl"
_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation"}
_SPLITS |= {"dev": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Jsonl:
    """task: of rows that state none; "" takes what their answer is."""

    files: tuple[Path, ...]
    images: Path | None = None
    task: str = ""
    seed: int = 0
    license: str = "unspecified"
    name: str = NAME
    near: bool = True

    @property
    def rules(self) -> Rules:
        return Rules(leaks="report")

    @property
    def options(self) -> Mapping[str, Any]:
        return {
            "seed": self.seed,
            "license": self.license,
            "task": self.task,
            "images": str(self.images),
            "files": stamp(*self.files),
        }

    def units(self) -> Rows:
        """Raises LayoutError for a .json file that is no list."""
        patient_of(self.files[0], "")  # makes the key before several workers want it
        return Rows(self.files)

    def records(self, unit: Span) -> Iterator[Record | Rejected]:
        number, start, length, row = unit
        file = self.files[number]
        try:
            yield self._record(file, row, read_row(file, start, length))
        except (RowError, MediaError) as error:
            yield Rejected(f"{file.name}, row {row}", str(error))
        except (AnswerError, TargetError):
            yield Rejected(f"{file.name}, row {row}", "task and answer do not fit")

    def _record(self, file: Path, number: int, row: Mapping[str, Any]) -> Record:
        talk = read_talk(row)
        media = [read_picture(inside(self.images or file.parent, name)) for name in talk.images]
        turns, target = placed(talk.turns, talk.objects, media)
        language = _stated(row, "language", LANGUAGES) or language_of(turns)
        task, target = _truth(_stated(row, "task", TASKS) or self.task, turns[-2].text, turns[-1].text, target)
        key = f"{file.name}/{number}"
        patient = plain(row.get("patient", row.get("patient_id"))) or next(iter(talk.images), key)
        record = Maker(NAME, self.license, self.files[0], self.seed).record(
            key,
            split=_split(row, file) or split_of(patient, self.seed),
            patient=patient,
            task=task,
            language=language,
            topic=_topic(task, talk, target),
            media=media,
            question="-",
            target=target,
            origin=f"{file.name}, row {number}",
        )
        holes = bool(talk.objects) and target["kind"] in ("boxes", "points")
        return dataclasses.replace(record, turns=said_anew(turns, target, task, language) if holes else turns)


def converter(
    source: Path, *, images: Path | None = None, task: str = "", license: str = "unspecified", seed: int = 0
) -> Jsonl:
    """source: a file, or a folder of .jsonl and .json files. images: the folder image names start from. Raises
    LayoutError."""
    if task:
        one_of("task", task, TASKS)
    files = [source]
    if source.is_dir():
        files = sorted(path for path in source.iterdir() if path.suffix.lower() in (".jsonl", ".json"))
    if not files:
        raise missing(source, ("*.jsonl", "*.json"))
    return Jsonl(tuple(files), images, task, seed, license)


def _truth(task: str, question: str, answer: str, target: Target | None) -> tuple[str, Target]:
    """(task, target) of the last turn. target: its boxes or points."""
    if target is not None:
        return task or ("detection" if target["kind"] == "boxes" else "landmark"), target
    listed = listed_options(question, answer) if task in ("", "vqa", "classification") else None
    if listed is not None:
        options, index, first = listed
        return task or ("vqa" if first else "classification"), options_target(options, index, first)
    return task or "vqa", text_target(answer)


def _topic(task: str, talk: Talk, target: Target) -> str:
    if target["kind"] in ("boxes", "points"):
        return f"{target['kind']}/" + "+".join(dict.fromkeys(item["label"] for item in target["items"]))
    question = talk.turns[-2].text.replace(MEDIA_TOKEN, "")
    return topic_of(question, target) if task == "vqa" else task


def _stated(row: Mapping[str, Any], key: str, allowed: Sequence[str]) -> str:
    """The row's own word, "" without one. Raises RowError for one that is not allowed."""
    value = plain(row.get(key))
    if value and value not in allowed:
        raise RowError(f"unknown {key}")
    return value


def _split(row: Mapping[str, Any], file: Path) -> str:
    stated = _stated(row, "split", tuple(_SPLITS))
    words = [stated] if stated else re.split(r"[^a-z]+", file.stem.lower())
    return next((_SPLITS[word] for word in words if word in _SPLITS), "")
