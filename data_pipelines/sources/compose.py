"""Captions, comparisons and reports of a view, put together from its facts in either language.

A view is a list of aspects, each with its sentence. A caption says what is shown and what is found, a report what is
found and measured, a comparison which sentences two views share and which they do not.
"""

import math
from collections.abc import Sequence

from data_pipelines.prompts import answer_text, join, measure_list, name_list, say, state, term
from data_pipelines.sources.study import View
from umit_jax.targets import Frame, boxes_target

MAX_NAMES = 8  # structures a sentence lists
MAX_GROUNDED = 4  # structures a grounded caption locates


def shown(view: View, language: str) -> str:
    """ "CT, axial slice." """
    modality, facts = term(view.media.modality, language), view.facts
    if len(view.media.size) == 3:
        return say("shown/volume", language, modality=modality)
    if facts.view:
        return say("shown/projection", language, modality=modality, view=term(facts.view, language))
    if facts.plane:
        return say("shown/slice", language, modality=modality, plane=term(facts.plane, language))
    return say("shown/image", language, modality=modality)


def found(view: View, language: str) -> list[str]:
    """Sentences about findings, sizes, sides, counts and places."""
    facts = view.facts
    sentences = [state("enlarged", key, "yes" if value else "no", language) for key, value in facts.enlarged.items()]
    sentences += [state("sides", key, side, language) for key, side in facts.sides.items()]
    sentences += [state("findings", key, value, language) for key, value in facts.findings.items()]
    sentences += [say("lists/count", language, key=key, number=str(n)) for key, n in facts.counts.items()]
    sentences += [
        say("lists/places", language, key=key, place=term(place, language)) for key, place in facts.places.items()
    ]
    return sentences


def measured(view: View, language: str) -> list[str]:
    facts = view.facts
    kinds = (
        ("volumes", facts.volumes_ml, "mL"),
        ("diameters", facts.diameters_mm, "mm"),
        ("heights", facts.heights_mm, "mm"),
    )
    return [
        say(f"lists/{kind}", language, list=measure_list(dict(values), unit, language))
        for kind, values, unit in kinds
        if values
    ]


def named(view: View, language: str, names: Sequence[str]) -> list[str]:
    return [say("lists/visible", language, list=name_list(names[:MAX_NAMES], language))] if names else []


def _place(view: View, language: str) -> list[str]:
    facts = view.facts
    sentences = [say("lists/region", language, key=facts.region)] if facts.region else []
    return sentences + ([say("lists/organ", language, key=facts.organ)] if facts.organ else [])


def caption(view: View, language: str) -> str:
    sentences = [shown(view, language), *_place(view, language), *named(view, language, view.facts.visible)]
    return join(sentences + found(view, language), language)


def grounded(view: View, frame: Frame, language: str) -> str:
    """What is shown, then the largest structures with their boxes; a 3D box, which names nothing, after its name."""
    items = [(name, box) for name, boxes in view.boxes.items() for box in boxes]
    items.sort(key=lambda item: -math.prod(item[1][i + frame.ndim] - item[1][i] for i in range(frame.ndim)))
    texts = [shown(view, language)]
    for name, box in items[:MAX_GROUNDED]:
        label = term(name, language)
        text = answer_text(boxes_target(frame, [(label, box)]), task="detection", language=language)
        texts.append(text if frame.ndim == 2 else f"{label} {text}")
    return join(texts, language)


def report(views: Sequence[View], language: str) -> str:
    """Structures, findings and measurements of all views; a sentence that two views share is said once. A view of
    which nothing is known but its kind is reported as that."""
    sentences: list[str] = []
    for view in views:
        known = [*named(view, language, view.facts.visible), *found(view, language), *measured(view, language)]
        sentences += known or [shown(view, language)]
    return join(dict.fromkeys(sentences), language)


def comparison(first: View, second: View, language: str) -> str:
    """What is in both, what only in the first, what only in the second."""
    a, b = (_aspects(view, language) for view in (first, second))
    shared = [name for name in first.facts.visible if name in second.facts.visible]
    parts = []
    for kind, sentences, names in (
        ("both", [s for s in a if s in b], shared),
        ("first", [s for s in a if s not in b], [n for n in first.facts.visible if n not in shared]),
        ("second", [s for s in b if s not in a], [n for n in second.facts.visible if n not in shared]),
    ):
        sentences = sentences + named(first, language, names)
        if sentences:
            parts.append(say(f"lists/{kind}", language, text=join(sentences, language)))
    if len(parts) == 1 and set(a) == set(b):
        parts.append(say("lists/same", language))
    return join(parts, language)


def _aspects(view: View, language: str) -> list[str]:
    return [shown(view, language), *_place(view, language), *found(view, language)]
