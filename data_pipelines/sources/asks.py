"""What can be asked of a study: every question that its facts, boxes and points answer, before wording and language.

| task           | topics                                                                                    |
| caption        | caption, grounded (with boxes)                                                            |
| comparison     | comparison                                                                                |
| classification | modality, plane, view, region, organ                                                      |
| vqa, closed    | presence/X, visible/X, laterality/X, enlarged/X, larger/X+Y, where/X                       |
| vqa, open      | modality, plane, count/X, volume/X, diameter/X, height/X                                  |
| detection      | box/X in an image, box3d/X in a volume                                                    |
| landmark       | landmark/X in an image, landmark3d/X in a volume                                          |
| report         | report                                                                                    |

A vqa topic that shares its name with a classification (modality, plane) is the open question.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from data_pipelines.prompts import quantity, term, term_names
from data_pipelines.sources import compose
from data_pipelines.sources.study import Study, View
from umit_jax.targets import Frame, Target, boxes_target, points_target, text_target

MAX_BOXES = 5  # more boxes of one thing in one image are not asked for
LARGER_BY = 1.15  # two structures are compared only where one is clearly larger
_SAME_NAME = {"CR": "DX"}


@dataclasses.dataclass(frozen=True)
class Ask:
    """One question. kind: which wordings. target: the term asked about. A closed question has options (terms) and the
    index of the right one; any other has `answer`, which gives the target in a language."""

    task: str
    topic: str
    kind: str
    views: tuple[View, ...]
    label_kind: str
    target: str | None = None
    options: tuple[str, ...] = ()
    index: int = 0
    answer: Callable[[str], Target] | None = None
    size: tuple[float, ...] | None = None


def asks(study: Study) -> Iterator[Ask]:
    """Every question, in a fixed order. Raises TermError for a name that terms.yaml does not have."""
    for view in study.views:
        yield from _captions(study, view)
        yield from _classifications(study, view)
        yield from _findings(study, view)
        yield from _structures(study, view)
        yield from _open_questions(study, view)
        yield from _boxes(study, view)
        yield from _points(study, view)
    for keys in study.reports:
        views = tuple(study.view(key) for key in keys)
        yield _text(study, "report", "report", views, lambda language, v=views: compose.report(v, language))
    for keys in study.comparisons:
        first, second = (study.view(key) for key in keys)
        yield _text(
            study,
            "comparison",
            "comparison",
            (first, second),
            lambda language, a=first, b=second: compose.comparison(a, b, language),
        )


def frame_of(view: View) -> Frame:
    """Pixels of an image as it is stored, or voxels of a volume as it is shown."""
    size = tuple(float(extent) for extent in view.media.size)
    return Frame("raw" if len(size) == 2 else "voxel", size, view.media.spacing_mm)


def _kind(study: Study, kind: str) -> str:
    return "synthetic" if study.synthetic else kind or study.label_kind


def _text(study: Study, task: str, topic: str, views: tuple[View, ...], write: Callable[[str], str]) -> Ask:
    return Ask(
        task, topic, topic, views, _kind(study, "templated"), answer=lambda language: text_target(write(language))
    )


def _captions(study: Study, view: View) -> Iterator[Ask]:
    yield _text(study, "caption", "caption", (view,), lambda language: compose.caption(view, language))
    if view.boxes:
        yield _text(
            study, "caption", "grounded", (view,), lambda language: compose.grounded(view, frame_of(view), language)
        )


def _classifications(study: Study, view: View) -> Iterator[Ask]:
    facts = view.facts
    modality = _SAME_NAME.get(view.media.modality, view.media.modality)
    known = {
        "modality": modality,
        "plane": facts.plane,
        "view": facts.view,
        "region": facts.region,
        "organ": facts.organ,
    }
    for topic, value in known.items():
        options = study.choices.get(topic, ())
        if value in options and len(options) > 1:
            kind = "tag" if topic in ("modality", "plane", "view") else ""
            yield Ask("classification", topic, topic, (view,), _kind(study, kind), None, options, options.index(value))


def _closed(study: Study, view: View, kind: str, target: str, options: tuple[str, ...], right: str) -> Ask:
    spoken = None if kind == "larger" else target
    index = options.index(right)
    return Ask("vqa", f"{kind}/{target}", kind, (view,), _kind(study, ""), spoken, options, index)


def _findings(study: Study, view: View) -> Iterator[Ask]:
    facts, yes_no = view.facts, ("yes", "no")
    for finding, value in facts.findings.items():
        yield _closed(study, view, "presence", finding, yes_no, "no" if value == "no" else "yes")
        if value in ("left", "right"):
            yield _closed(study, view, "laterality", finding, ("left", "right"), value)
    for structure, side in facts.sides.items():
        yield _closed(study, view, "laterality", structure, ("left", "right"), side)
    for structure, enlarged in facts.enlarged.items():
        yield _closed(study, view, "enlarged", structure, yes_no, "yes" if enlarged else "no")
    for thing, place in facts.places.items():
        yield _closed(study, view, "where", thing, study.choices[thing], place)


def _structures(study: Study, view: View) -> Iterator[Ask]:
    facts = view.facts
    for name in facts.visible:
        yield _closed(study, view, "visible", name, ("yes", "no"), "yes")
    for name in facts.absent:
        yield _closed(study, view, "visible", name, ("yes", "no"), "no")
    for left, right in _pairs(facts.volumes_ml):
        a, b = facts.volumes_ml[left], facts.volumes_ml[right]
        if max(a, b) > LARGER_BY * min(a, b):
            yield _closed(study, view, "larger", f"{left}+{right}", (left, right), left if a > b else right)


def _pairs(values: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """Names that differ in left and right only."""
    for name in values:
        other = name.replace("_left", "_right")
        if other != name and other in values:
            yield name, other


def _open_questions(study: Study, view: View) -> Iterator[Ask]:
    facts = view.facts

    def ask(topic: str, kind: str, target: str | None, label_kind: str, write: Callable[[str], str]) -> Ask:
        answer: Callable[[str], Target] = lambda language: text_target(write(language))  # noqa: E731
        return Ask("vqa", topic, kind, (view,), _kind(study, label_kind), target, answer=answer)

    yield ask("modality", "modality", None, "tag", lambda language: term(view.media.modality, language))
    if facts.plane:
        yield ask("plane", "plane", None, "tag", lambda language: term(facts.plane, language))
    for name, count in facts.counts.items():
        yield ask(f"count/{name}", "count", name, "", lambda _, n=count: str(n))
    for kind, values, unit in (
        ("volume", facts.volumes_ml, "mL"),
        ("diameter", facts.diameters_mm, "mm"),
        ("height", facts.heights_mm, "mm"),
    ):
        for name, value in values.items():
            yield ask(f"{kind}/{name}", kind, name, "", lambda _, v=value, u=unit: quantity(v, u))


def _boxes(study: Study, view: View) -> Iterator[Ask]:
    frame = frame_of(view)
    solid = frame.ndim == 3
    for name, boxes in view.boxes.items():
        if not 0 < len(boxes) <= MAX_BOXES:
            continue

        def answer(language: str, name: str = name, boxes: tuple = boxes) -> Target:
            return boxes_target(frame, [(term(name, language), box) for box in boxes])

        kind = "box3d" if solid else "box2d"
        topic = f"box3d/{name}" if solid else f"box/{name}"
        size = frame.size if solid else None
        yield Ask("detection", topic, kind, (view,), _kind(study, ""), name, answer=answer, size=size)


def _points(study: Study, view: View) -> Iterator[Ask]:
    """Points are spoken in pixels or voxels of what is shown, as the paper's landmarks are."""
    frame = frame_of(view)
    solid = frame.ndim == 3
    for name, point in view.points.items():

        def answer(language: str, name: str = name, point: Sequence[float] = point) -> Target:
            return points_target(frame, [(term(name, language), point)])

        kind = "point" if name in term_names("landmarks") + term_names("findings") else "centre"
        topic = f"landmark3d/{name}" if solid else f"landmark/{name}"
        yield Ask("landmark", topic, kind, (view,), _kind(study, ""), name, answer=answer, size=frame.size)
