"""Sentences of captions, comparisons and reports: one key and value of statements.yaml, its slots filled."""

import functools
import re
from collections.abc import Iterable
from importlib import resources

import yaml

from data_pipelines.prompts.terms import TermError, quantity, term

_COLUMN = {"en": 0, "zh": 1}
_COMMA = {"en": ", ", "zh": "、"}


@functools.cache
def _statements() -> dict:
    text = resources.files("data_pipelines.prompts").joinpath("statements.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


STATEMENTS_VERSION: int = _statements()["version"]


def say(kind: str, language: str, *, key: str = "", **slots: str) -> str:
    """A sentence of the sections `shown` and `lists`, such as "shown/slice". Slots are text already in the language;
    `key` gives {name} and {names}."""
    section, _, entry = kind.partition("/")
    if entry not in _statements().get(section, {}):
        raise TermError(f"statements.yaml has no {kind!r}")
    return _fill(_statements()[section][entry], language, key, slots)


def state(section: str, key: str, value: str, language: str) -> str:
    """What holds of a term: section is findings, enlarged or sides, value "no", "yes", "left", "right" or "both"."""
    own = _statements()[section].get(key, {})
    pair = own.get(value) or _statements()[section]["any"].get(value)
    if pair is None:
        raise TermError(f"statements.yaml has no {section}/{key}/{value}")
    return _fill(pair, language, key, {})


def _fill(pair: list[str], language: str, key: str, slots: dict[str, str]) -> str:
    if key:
        slots = slots | {"name": term(key, language), "names": term(key, language, plural=True)}

    def slot(match: re.Match[str]) -> str:
        text = slots[match[1][0].lower() + match[1][1:]]
        return text[:1].upper() + text[1:] if match[1][0].isupper() else text

    return re.sub(r"{(\w+)}", slot, pair[_COLUMN[language]])


def name_list(keys: Iterable[str], language: str) -> str:
    return _COMMA[language].join(term(key, language) for key in keys)


def measure_list(values: dict[str, float], unit: str, language: str) -> str:
    """ "liver 1482 mL, spleen 260 mL" """
    space = " " if language == "en" else ""
    return _COMMA[language].join(f"{term(k, language)}{space}{quantity(v, unit)}" for k, v in values.items())


def join(sentences: Iterable[str], language: str) -> str:
    """Sentences in a row; English puts a space between them."""
    return (" " if language == "en" else "").join(sentences)
