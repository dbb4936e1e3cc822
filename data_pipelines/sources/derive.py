"""A labelled study -> records of all tasks, in one or both languages; the same for real data and the phantom.

`asks` lists what the study answers, `choose` thins it out, `record_of` words one question and its answer. Everything
is a function of the study and a seed: the order of a data set's studies changes nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.media.volume import PLANES
from data_pipelines.prompts import answer_text, render_question, term
from data_pipelines.prompts.render import first_number
from data_pipelines.record import LANGUAGES, MEDIA_TOKEN, Record, Turn, check_record
from data_pipelines.seeded import generator
from data_pipelines.sources.asks import Ask, asks
from data_pipelines.sources.study import Study
from umit_jax.targets import Target, options_target


def derive(
    study: Study,
    *,
    seed: int = 0,
    languages: Sequence[str] = LANGUAGES,
    per_topic: int | Mapping[str, int] | None = None,
    wording_count: int | None = None,
    shuffle_options: bool = False,
) -> Iterator[Record]:
    """Records of every question the study answers, each in every language.

    per_topic: at most so many questions of one task and topic (None: all), or how many by task (a task that is not
    there: all), chosen by the seed. Yes-no questions are
    kept in balance: of each task and kind as many with one answer as with the other. wording_count: see
    render_question. Raises TermError for a name that terms.yaml lacks.
    """
    rng = generator(seed, study.id)
    for ask in choose(rng, asks(study), per_topic):
        for language in languages:
            yield record_of(rng, study, ask, language, wording_count=wording_count, shuffle_options=shuffle_options)


def choose(rng: np.random.Generator, questions: Iterable[Ask], per_topic: int | Mapping[str, int] | None) -> list[Ask]:
    """At most per_topic questions of each topic, and yes-no questions in balance, in the order they came."""
    questions = list(questions)
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, ask in enumerate(questions):
        groups[ask.task, ask.topic].append(i)
    limits = {task: per_topic.get(task) if isinstance(per_topic, Mapping) else per_topic for task, _ in groups}
    kept = {i for (task, _), group in groups.items() for i in _sample(rng, group, limits[task])}
    answers: dict[str, dict[int, list[int]]] = defaultdict(lambda: {0: [], 1: []})
    for i in sorted(kept):
        if questions[i].options == ("yes", "no"):
            answers[questions[i].kind][questions[i].index].append(i)
    for yes_no in answers.values():
        fewer = min(len(yes_no[0]), len(yes_no[1]))
        for indices in yes_no.values():
            kept -= set(indices) - set(_sample(rng, indices, max(fewer, 1)))
    return [questions[i] for i in sorted(kept)]


def _sample(rng: np.random.Generator, items: list[int], count: int | None) -> list[int]:
    if count is None or len(items) <= count:
        return items
    return sorted(items[int(i)] for i in rng.permutation(len(items))[:count])


def record_of(
    rng: np.random.Generator,
    study: Study,
    ask: Ask,
    language: str,
    *,
    wording_count: int | None = None,
    shuffle_options: bool = False,
) -> Record:
    """One question as a record: media first, then the question, then the answer."""
    options, target = _target(rng, ask, language, shuffle_options)
    question = render_question(
        rng,
        ask.task,
        ask.kind,
        language,
        wording_count=wording_count,
        target=ask.target,
        options=options,
        size=ask.size,
        **_place(ask),
    )
    views = "+".join(view.key for view in ask.views)
    how = "; ".join(view.how for view in ask.views if view.how)
    return check_record(
        Record(
            id=f"{study.id}/{views}/{ask.task}/{ask.topic}/{language}",
            dataset=study.dataset,
            split=study.split,
            patient_id=study.patient_id,
            task=ask.task,
            language=language,
            topic=ask.topic,
            media=tuple(view.media for view in ask.views),
            turns=(
                Turn("user", MEDIA_TOKEN * len(ask.views) + question),
                Turn("assistant", answer_text(target, task=ask.task, language=language)),
            ),
            target=target,
            label_kind=ask.label_kind,
            license=study.license,
            source=f"{study.source}; {how}" if how else study.source,
            synthetic=study.synthetic,
            heldout=study.heldout,
        )
    )


def _place(ask: Ask) -> dict[str, Any]:
    """Plane and number of the slice that is shown, or the plane of a volume's slices."""
    if len(ask.views) != 1:
        return {}
    (view,) = ask.views
    of_volume = next((name for name, axes in PLANES.items() if axes == view.media.orientation), "")
    return {"plane": view.facts.plane or of_volume, "slice_of": view.facts.slice_of}


def _target(
    rng: np.random.Generator, ask: Ask, language: str, shuffle_options: bool
) -> tuple[list[str] | None, Target]:
    if ask.answer is not None:
        return None, ask.answer(language)
    order = rng.permutation(len(ask.options)) if shuffle_options else np.arange(len(ask.options))
    options = [term(ask.options[i], language) for i in order]
    return options, options_target(options, int(np.flatnonzero(order == ask.index)[0]), first_number(ask.task))
