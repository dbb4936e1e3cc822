"""Rows of published data sets -> Records: what a question, an answer and an image become, the same for every set.

| answer                        | target                                                                    |
| yes or no, in either language | options, which the question then lists, numbered from 1                   |
| other                         | text                                                                      |

Chinese yes and no follow the question's own verb, so the pair that is listed does not give the answer away.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_pipelines.prompts import answer_text, options_text, render_question
from data_pipelines.prompts.render import first_number
from data_pipelines.record import MEDIA_TOKEN, Media, Record, Turn
from data_pipelines.seeded import generator
from data_pipelines.sources.source_files import patient_of
from umit_jax.targets import Frame, Target, TargetError, boxes_target, options_target, text_target

OUTSIDE = "box outside the image, empty or inverted"
_COUNTS = {2: "two", 4: "four"}
_FAR = 1e9  # beyond any image; not a number is not below it
_EN = ("yes", "no")
_WORDS = frozenset(
    ("what", "where", "when", "which", "who", "why", "how", "is", "are", "was", "were", "does", "do", "did", "can")
)
_ZH = (("是", "否"), ("有", "没有"), ("存在", "不存在"), ("能", "不能"), ("可以", "不可以"), ("包含", "不包含"))
_PAIRS = {
    "en": {word: (_EN, i) for i, word in enumerate(_EN)},
    "zh": {word: (pair, i) for pair in _ZH for i, word in enumerate(pair)}
    | {"不是": (_ZH[0], 1), "不": (_ZH[0], 1), "无": (_ZH[1], 1), "没": (_ZH[1], 1)},
}


class RowError(ValueError):
    """A row that gives no record; the message is the fixed reason that is counted."""


@dataclasses.dataclass(frozen=True)
class Maker:
    """What all records of a set share. source: the folder beside which the key of the patients' hashes stays."""

    dataset: str
    license: str
    source: Path
    seed: int = 0

    def record(
        self,
        key: str,
        *,
        split: str,
        patient: str,
        task: str,
        language: str,
        topic: str,
        media: Sequence[Media],
        question: str,
        target: Target,
        origin: str,
        label_kind: str = "manual",
        heldout: str = "patient",
    ) -> Record:
        """A record of one question. patient: what identifies the patient in the source, hashed here; origin: which
        file and row it comes from."""
        return Record(
            id=f"{self.dataset}/{key}",
            dataset=self.dataset,
            split=split,
            patient_id=patient_of(self.source, patient),
            task=task,
            language=language,
            topic=topic,
            media=tuple(media),
            turns=(
                Turn("user", MEDIA_TOKEN * len(media) + question),
                Turn("assistant", answer_text(target, task=task, language=language)),
            ),
            target=target,
            label_kind=label_kind,
            license=self.license,
            source=f"{self.dataset}: {origin}",
            heldout=heldout,
        )

    def ask(self, key: str, task: str, kind: str, language: str, name: str = "", **slots: Any) -> str:
        """One wording of templates.yaml, chosen by seed and key, about what `name` says; slots of render_question."""
        rng = generator(self.seed, self.dataset, key)
        return render_question(rng, task, kind, language, name=name or None, **slots)


def vqa(question: str, answer: str, language: str) -> tuple[str, Target]:
    """(question with its options listed, target) of a question and its answer. Raises RowError."""
    question, answer = plain(question), plain(answer)
    if not question:
        raise RowError("no question")
    if not answer:
        raise RowError("no answer")
    found = _PAIRS[language].get(answer.rstrip(".。").strip().lower())
    if found is None:
        return question, text_target(answer)
    first = first_number("vqa")
    target = options_target(found[0], found[1], first)
    return f"{question}\n{options_text(found[0], first, language)}", target


def kind_of(target: Target) -> str:
    """ "closed" for options, "open" for a text: the first part of a question's topic."""
    return "closed" if target["kind"] == "options" else "open"


def topic_of(question: str, target: Target) -> str:
    """A topic for a question whose set names no kind: closed or open, and the word it begins with."""
    word = re.match(r"\w*", question.lower())
    return f"{kind_of(target)}/{word[0] if word and word[0] in _WORDS else 'other'}"


def plain(value: object) -> str:
    """A cell as text on one line: numbers become words, stray and repeated spaces go, "NULL" and MEDIA_TOKEN are
    nothing."""
    text = "" if value is None else str(value).encode("utf-8", "replace").decode()  # half a character is none
    text = re.sub(r"\s+", " ", text.replace(MEDIA_TOKEN, " ")).strip()
    return "" if text in ("NULL", "nan", "NaN") else text


def numbers(value: Any, counts: Sequence[int]) -> list[float]:
    """A list of as many finite numbers as one of `counts` says. Raises RowError."""
    if not isinstance(value, list) or len(value) not in counts or not all(type(n) in (int, float) for n in value):
        raise RowError(f"box is not {' or '.join(_COUNTS[count] for count in counts)} numbers")
    if not all(abs(n) < _FAR for n in value):
        raise RowError(OUTSIDE)
    return [float(n) for n in value]


def boxes(media: Media, items: Sequence[tuple[str, Sequence[float]]]) -> Target:
    """Corner boxes in pixels of the image. Raises RowError, and never clips."""
    try:
        return boxes_target(Frame("raw", tuple(float(n) for n in media.size)), items)
    except TargetError:
        raise RowError(OUTSIDE) from None
