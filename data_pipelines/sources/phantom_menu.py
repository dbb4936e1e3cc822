"""Which questions a phantom patient is asked: a few of each task, drawn so that no answer of a topic dominates.

A patient answers about a hundred questions; a data set wants few of each patient and many patients. Each course below
serves `count` records a patient from its dishes: (weight, topic, views). A topic ending in "/" stands for every topic
that begins so; its yes and no are drawn first, each half the time, and then a question with that answer.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from data_pipelines.sources.asks import Ask, asks
from data_pipelines.sources.study import Study


@dataclasses.dataclass(frozen=True)
class Course:
    task: str
    count: int
    dishes: tuple[tuple[float, str, tuple[str, ...]], ...]


CT_SLICES = ("axial", "coronal", "sagittal")
MENU = (
    Course(
        "vqa",
        3,
        (
            (4, "presence/pleural_effusion", ("frontal",)),
            (1, "laterality/pleural_effusion", ("frontal",)),
            (4, "laterality/heart_apex", ("frontal",)),
            (3, "enlarged/heart", ("frontal",)),
            (1, "where/focal_uptake", ("pet",)),
            (3, "laterality/liver", ("ct",)),
            (2, "count/liver_cyst", ("us",)),
            (2, "modality", ("frontal", "axial", "pet", "us")),
        ),
    ),
    Course(
        "classification",
        2,
        (
            (3, "modality", ("frontal", "coronal", "pet", "us")),
            (3, "plane", CT_SLICES),
            (3, "organ", ("crop",)),
            (2, "view", ("frontal", "lateral")),
        ),
    ),
    Course(
        "detection",
        3,
        (
            (4, "box/heart", ("frontal",)),
            (4, "box/liver", ("coronal",)),
            (5, "box3d/heart", ("ct",)),
            (3, "box3d/liver", ("ct",)),
            (1, "box/liver_cyst", ("us",)),
        ),
    ),
    Course(
        "landmark",
        3,
        (
            (1, "landmark/focal_uptake", ("pet",)),
            (2, "landmark/heart_apex", ("frontal",)),
            (4, "landmark/carina", ("frontal",)),
            (4, "landmark3d/vertebrae_T10", ("ct",)),
            (4, "landmark3d/vertebrae_L1", ("ct",)),
        ),
    ),
    Course("report", 1, ((1, "report", ("frontal",)),)),
    Course(
        "caption",
        3,
        (
            (6, "caption", ("frontal",)),
            (4, "grounded", ("frontal",)),
            (3, "caption", ("pet",)),
            (3, "grounded", ("pet", "coronal")),
            (8, "grounded", ("ct",)),
            (2, "caption", ("us", "crop")),
            (1, "caption", (*CT_SLICES, "lateral")),
        ),
    ),
    Course(
        "comparison",
        1,
        ((2, "comparison", ("prior",)), (1, "comparison", ("frontal",)), (1, "comparison", ("axial",))),
    ),
)


def serve(rng: np.random.Generator, study: Study, menu: Sequence[Course] = MENU) -> Iterator[tuple[Ask, int]]:
    """(question, its number on the menu) for one patient: of each course `count` different dishes, drawn by weight; a
    dish the study cannot serve is passed over."""
    by_view: dict[tuple[str, str], list[Ask]] = {}
    for ask in asks(study):
        by_view.setdefault((ask.task, ask.views[0].key), []).append(ask)
    number = 0
    for course in menu:
        served = 0
        for i in _by_weight(rng, [dish[0] for dish in course.dishes]):
            _, topic, views = course.dishes[i]
            ask = _pick(rng, by_view.get((course.task, views[int(rng.integers(len(views)))]), []), topic)
            if ask is None or served == course.count:
                continue
            yield ask, number
            served += 1
            number += 1


def _by_weight(rng: np.random.Generator, weights: list[float]) -> list[int]:
    """All indices in random order, heavier ones earlier: drawn one after the other without putting back."""
    return np.argsort(rng.exponential(size=len(weights)) / np.array(weights)).tolist()


def _pick(rng: np.random.Generator, found: list[Ask], topic: str) -> Ask | None:
    wanted = [ask for ask in found if ask.topic == topic or (topic.endswith("/") and ask.topic.startswith(topic))]
    if topic.endswith("/"):
        answer = int(rng.integers(2))
        wanted = [ask for ask in wanted if ask.index == answer]
    return wanted[int(rng.integers(len(wanted)))] if wanted else None
