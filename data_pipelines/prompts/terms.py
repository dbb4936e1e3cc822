"""Names in both languages: organs and structures, modalities, planes, views, landmarks, findings, answer words.

Masks, facts and topics carry keys ("kidney_left", "PT", "pleural_effusion"); only text carries names. Keys of organs
are TotalSegmentator's class names, keys of modalities DICOM's codes.
"""

import functools
from importlib import resources

import yaml

_LANGUAGE_COLUMN = {"en": 0, "zh": 1}


class TermError(ValueError):
    """A key that terms.yaml does not have, or a language it does not speak; the message names it."""


@functools.cache
def _sections() -> dict[str, dict[str, list[str]]]:
    text = resources.files("data_pipelines.prompts").joinpath("terms.yaml").read_text(encoding="utf-8")
    return {name: section for name, section in yaml.safe_load(text).items() if name != "version"}


@functools.cache
def _table() -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for section, entries in _sections().items():
        for key, names in entries.items():
            if key in table:
                raise TermError(f"terms.yaml: {key!r} stands twice, the second time in {section}")
            table[key] = names
    return table


def term_names(section: str) -> tuple[str, ...]:
    """The keys of one section (organs, structures, modalities, planes, views, landmarks, findings, answers)."""
    if section not in _sections():
        raise TermError(f"section: expected one of {', '.join(_sections())}, found {section!r}")
    return tuple(_sections()[section])


def term(key: str, language: str, *, plural: bool = False) -> str:
    """The name of a key in a language. Chinese has no plural; an English plural is the third name or ends in -s."""
    if language not in _LANGUAGE_COLUMN:
        raise TermError(f"language: expected en or zh, found {language!r}")
    names = _table().get(key)
    if names is None:
        raise TermError(f"terms.yaml has no {key!r}")
    name = names[_LANGUAGE_COLUMN[language]]
    if plural and language == "en":
        return names[2] if len(names) > 2 else name + "s"
    return name


def quantity(value: float, unit: str) -> str:
    """A measured number as reports and answers print it: whole from 10 on, one decimal below, then a space and the
    unit ("1482 mL", "4.3 mm"). The same in both languages: Chinese reports write mm and mL too."""
    return f"{number(value)} {unit}"


def number(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 9.95 else f"{value:.0f}"
