"""The question side: one wording of templates.yaml, its slots filled.

| slot      | filled with                                                      |
| {target}  | the name of the key given as target=, {targets} its plural; or name= |
| {options} | the numbered options given as options=, the first number as first= |
| {size}    | the extent of the frame given as size= (w, h) or (w, h, d)       |
"""

import functools
import re
from collections.abc import Sequence
from importlib import resources

import numpy as np
import yaml

from data_pipelines.prompts.answers import options_text
from data_pipelines.prompts.terms import term


class TemplateError(ValueError):
    """A task, kind or language without wordings, or a slot that is missing or not used; the message names it."""


@functools.cache
def _templates() -> dict:
    text = resources.files("data_pipelines.prompts").joinpath("templates.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


TEMPLATES_VERSION: int = _templates()["version"]


def wordings(task: str, kind: str, language: str) -> list[str]:
    """All wordings of one kind of question, the plainest first."""
    found = _templates().get(task, {})
    if not isinstance(found, dict) or kind not in found or language not in found[kind]:
        raise TemplateError(f"templates.yaml has no wording for {task}/{kind} in {language!r}")
    return found[kind][language]


def render_question(
    rng: np.random.Generator,
    task: str,
    kind: str,
    language: str,
    *,
    wording_count: int | None = None,
    target: str | None = None,
    name: str | None = None,
    options: Sequence[str] | None = None,
    first: int | None = None,
    size: Sequence[float] | None = None,
) -> str:
    """One question as text, without the media token.

    rng: chooses among the first `wording_count` wordings (None: all). target: a key of terms.yaml, rendered in the
    language. name: instead of it, the data set's own name, already in the language. options: already in the language,
    listed a line each and numbered from `first` (default: 0 for a classification, else 1). size: extent of the frame
    the answer speaks.
    Raises TemplateError for an unknown kind and for a slot the wording needs and did not get, or got and does not use.
    """
    choices = wordings(task, kind, language)[:wording_count]
    text = choices[int(rng.integers(len(choices)))]
    slots: dict[str, str] = {}
    if target is not None:
        slots["target"] = term(target, language)
        slots["targets"] = term(target, language, plural=True)
    if name is not None:
        slots["target"] = slots["targets"] = name
    if options is not None:
        slots["options"] = options_text(options, first_number(task) if first is None else first, language)
    if size is not None:
        slots["size"] = "x".join(f"{extent:.0f}" for extent in size)
    wanted = set(re.findall(r"{(\w+)}", text))
    if wanted - slots.keys():
        raise TemplateError(f"{task}/{kind}: slot {min(wanted - slots.keys())!r} is missing")
    unused = slots.keys() - wanted - {"target", "targets"}
    if unused or ("target" in slots and not wanted & {"target", "targets"}):
        raise TemplateError(f"{task}/{kind}: no wording uses {min(unused, default='target')!r}")
    return re.sub(r"{(\w+)}", lambda match: slots[match[1]], text)


def first_number(task: str) -> int:
    """The number spoken for the first option: 0 in a classification, 1 in a question."""
    return 0 if task == "classification" else 1
