"""The question side: one wording of templates.yaml, its slots filled.

| slot      | filled with                                                      |
| {target}  | the name of the key given as target=, {targets} its plural; or name= |
| {options} | the numbered options given as options=, the first number as first= |
| {size}    | the extent of the frame given as size= (w, h) or (w, h, d)       |
| {plane}   | the plane of the slice, or of a volume's slices, where it is known |
| {slice}   | which slice of how many ("12/60"), where it is known               |

A wording may have {plane} and {slice} besides the slots of its kind; it is not chosen where they are not known.
"""

import contextlib
import contextvars
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data_pipelines.prompts.answers import options_text
from data_pipelines.prompts.terms import term

_SLOT = re.compile(r"{(\w+)}")
_IF_KNOWN = frozenset(("plane", "slice"))
_chosen: contextvars.ContextVar[Path | None] = contextvars.ContextVar("templates", default=None)


class TemplateError(ValueError):
    """A task, kind or language without wordings, or a slot that is missing or not used; the message names it."""


@functools.cache
def read_templates(path: Path | None) -> dict[str, Any]:
    """The checked content of a template file, None for templates.yaml. Raises TemplateError and OSError.

    A file of your own has the same form and needs only the kinds of question it changes; those it names replace ours
    entirely, so that a released checkpoint's exact prompts can be trained on and asked.
    """
    ours = yaml.safe_load(Path(__file__).with_name("templates.yaml").read_text(encoding="utf-8"))
    if path is None:
        return ours
    try:
        theirs = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TemplateError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(theirs, dict) or "version" not in theirs:
        raise TemplateError(f"{path}: expected `version` and tasks, found {type(theirs).__name__} without a version")
    merged = {task: dict(kinds) if isinstance(kinds, dict) else kinds for task, kinds in ours.items()}
    merged["version"] = theirs.pop("version")
    for task, kinds in theirs.items():
        if task not in ours or not isinstance(kinds, dict):
            raise TemplateError(f"{path}: {task}: expected one of {', '.join(t for t in ours if t != 'version')}")
        for kind, languages in kinds.items():
            if kind not in ours[task]:
                raise TemplateError(f"{path}: {task}/{kind}: expected one of {', '.join(ours[task])}")
            merged[task][kind] = _checked(path, f"{task}/{kind}", languages, ours[task][kind])
    return merged


def _checked(path: Path, name: str, languages: Any, ours: dict[str, list[str]]) -> dict[str, list[str]]:
    """One kind of a user's file: known languages, at least one wording each, and the slots ours have."""
    if not isinstance(languages, dict) or set(languages) - set(ours):
        raise TemplateError(f"{path}: {name}: expected the languages {', '.join(ours)}")
    for language, texts in languages.items():
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
            raise TemplateError(f"{path}: {name}/{language}: expected a list of wordings")
        slots = {frozenset(_SLOT.findall(text)) for text in ours[language]}
        allowed = _IF_KNOWN - {"plane"} if name.endswith("/plane") else _IF_KNOWN  # or it would be in the question
        for text in texts:
            if frozenset(_SLOT.findall(text)) - allowed not in slots:
                wanted = " or ".join(sorted(str(sorted(s)) for s in slots))
                raise TemplateError(f"{path}: {name}/{language}: expected the slots {wanted} in {text!r}")
    return {**ours, **languages}


@contextlib.contextmanager
def using_templates(path: Path | None) -> Iterator[None]:
    """Within it, questions are worded by the file at `path` (None: ours)."""
    read_templates(path)
    token = _chosen.set(path)
    try:
        yield
    finally:
        _chosen.reset(token)


def templates_version() -> Any:
    """`version` of the file in use; goes into the manifest."""
    return read_templates(_chosen.get())["version"]


def wordings(task: str, kind: str, language: str) -> list[str]:
    """All wordings of one kind of question, the plainest first."""
    found = read_templates(_chosen.get()).get(task, {})
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
    plane: str = "",
    slice_of: tuple[int, int] | None = None,
) -> str:
    """One question as text, without the media token.

    rng: chooses among the first `wording_count` wordings that can be asked (None: all). target: a key of terms.yaml,
    rendered in the language. name: instead of it, the data set's own name, already in the language. options: already in
    the language, listed a line each and numbered from `first` (default: 0 for a classification, else 1). size: extent
    of the frame the answer speaks. plane: a key of terms.yaml, slice_of: (number of the slice from 1, how many there
    are), where they are known.
    Raises TemplateError for an unknown kind and for a slot the wording needs and did not get, or got and does not use.
    """
    slots: dict[str, str] = {}
    if plane and kind != "plane":
        slots["plane"] = term(plane, language)
    if slice_of is not None:
        slots["slice"] = "{}/{}".format(*slice_of)
    askable = [t for t in wordings(task, kind, language) if _IF_KNOWN & set(_SLOT.findall(t)) <= slots.keys()]
    choices = askable[:wording_count]
    if not choices:
        raise TemplateError(f"{task}/{kind}: every wording needs a plane or slice, and that is not known")
    text = choices[int(rng.integers(len(choices)))]
    if target is not None:
        slots["target"] = term(target, language)
        slots["targets"] = term(target, language, plural=True)
    if name is not None:
        slots["target"] = slots["targets"] = name
    if options is not None:
        slots["options"] = options_text(options, first_number(task) if first is None else first, language)
    if size is not None:
        slots["size"] = "x".join(f"{extent:.0f}" for extent in size)
    wanted = set(_SLOT.findall(text))
    if wanted - slots.keys():
        raise TemplateError(f"{task}/{kind}: slot {min(wanted - slots.keys())!r} is missing")
    unused = slots.keys() - wanted - {"target", "targets"} - _IF_KNOWN
    if unused or ("target" in slots and not wanted & {"target", "targets"}):
        raise TemplateError(f"{task}/{kind}: no wording uses {min(unused, default='target')!r}")
    return _SLOT.sub(lambda match: slots[match[1]], text)


def first_number(task: str) -> int:
    """The number spoken for the first option: 0 in a classification, 1 in a question."""
    return 0 if task == "classification" else 1
