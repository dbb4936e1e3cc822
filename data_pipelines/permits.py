"""What may be done to a sample without making its text untrue: off rather than wrong.

What decides is data: the words of augment.yaml in all that the sample says, its target, modality and known orientation.
RULES is the table of docs/augmentation.md; each refusal is one of its reasons, in its order.
"""

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from data_pipelines.prompts.answers import AnswerError, answer_text
from data_pipelines.record import MEDIA_TOKEN, Record

KINDS = ("flip", "crop", "resize", "intensity", "corrupt")
_SPECIAL = re.compile(r"<\|[^|<>]*\|>")
_PAIR = re.compile(r"\d\s*[,，]\s*\d")  # coordinates in a question


@functools.cache
def table() -> Mapping[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("augment.yaml").read_text(encoding="utf-8"))


@functools.cache
def _pattern(kind: str) -> re.Pattern[str]:
    """Any of the words of one kind."""
    words = table()["words"][kind]
    english = "|".join(re.escape(word).replace(r"\*", r"\w*") for word in words["en"])
    return re.compile(rf"(?<![^\W\d_])(?:{english})(?![^\W\d_])|{'|'.join(map(re.escape, words['zh']))}", re.IGNORECASE)


def permits(record: Record) -> dict[str, str]:
    """{kind: why it may not be done, "" where it may}."""
    said = _said(record)
    return {
        kind: next((reason for reason, holds in rules.items() if holds(record, said)), "")
        for kind, rules in RULES.items()
    }


def has_coordinates(record: Record) -> bool:
    return record.target["kind"] in ("boxes", "points")


def _said(record: Record) -> str:
    """Everything the sample says, but for the numbers of an answer that is its target spelled out."""
    target = record.target
    texts = [turn.text for turn in record.turns if turn.role == "user" or not has_coordinates(record)]
    texts += [item["label"] for item in target.get("items", ())] + list(target.get("options", ())) + [record.topic]
    return _SPECIAL.sub(" ", "\n".join(texts).replace(MEDIA_TOKEN, " ")).replace("_", " ")


def _several(record: Record, said: str) -> bool:
    return len(record.media) != 1


def _none(record: Record, said: str) -> bool:
    return not record.media


def _of_a_body(record: Record, said: str) -> bool:
    return any(media.modality not in table()["sideless"] or media.orientation for media in record.media)


def _names_place(record: Record, said: str) -> bool:
    asked = "\n".join(turn.text for turn in record.turns if turn.role == "user")
    return bool(_pattern("place").search(said) or _PAIR.search(asked))


def _asks_amount(record: Record, said: str) -> bool:
    return bool(_pattern("amount").search(said))


def _names_look(record: Record, said: str) -> bool:
    return bool(_pattern("look").search(said))


def _own_words(record: Record, said: str) -> bool:
    """Boxes or points that would have to move inside a text that is not ours."""
    if not has_coordinates(record):
        return any("<|box_start|>" in turn.text for turn in record.turns) or _solid_boxes(record)
    try:
        spoken = answer_text(record.target, task=record.task, language=record.language)
    except AnswerError:
        return True
    return sum(turn.role == "assistant" for turn in record.turns) != 1 or record.turns[-1].text != spoken


def _solid_boxes(record: Record) -> bool:
    return any(re.search(r"\[\(\d+(?:,\d+)+\)", turn.text) for turn in record.turns)


def _nothing_to_keep(record: Record, said: str) -> bool:
    return not has_coordinates(record) and record.topic not in table()["whole_topics"]


Rules = Mapping[str, Callable[[Record, str], bool]]
_MOVES: Rules = {
    "not exactly one image or volume": _several,
    "answer whose coordinates cannot be moved": _own_words,
    "names a side or place": _names_place,
    "asks for a count or size": _asks_amount,
}
RULES: Mapping[str, Rules] = {
    "flip": {"image of a body, which has sides": _of_a_body, **_MOVES},
    "crop": {**_MOVES, "nothing says what must stay in view": _nothing_to_keep},
    "resize": _MOVES,
    "intensity": {"no image": _none, "names how the picture looks": _names_look},
    "corrupt": {"no image": _none, "names how the picture looks": _names_look},
}
