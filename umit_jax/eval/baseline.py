"""The naive baseline: what a model that never looks at the image would answer, learned from the training targets.

| kind    | answer                                                                                           |
| options | the commonest training answer among the options offered                                          |
| boxes   | for each label asked about, the mean box of that label (of all labels where it was never seen)   |
| points  | for each label asked about, the mean point of that label (the same)                              |
| text    | the commonest text                                                                               |

Boxes and points: none for every question of a group where most have none; otherwise a question whose truth has none is
answered as one about the group's commonest label, for its truth is not what it shows.

Training targets are grouped by (dataset, task, language, topic); a group without examples falls back to (dataset,
task, topic), (task, topic) and (task). Coordinates are averaged as fractions of the image, so frames may differ.
Of the item only what its question shows is used: the options, the frame and the labels asked about.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from umit_jax.eval.normalise import fold
from umit_jax.targets import Frame, Target

_LEVELS = (("dataset", "task", "language", "topic"), ("dataset", "task", "topic"), ("task", "topic"), ("task",))
_COORDINATES = {"boxes": "box", "points": "point"}
_ANY_LABEL = ""


class _Group:
    """What was seen of one group: answers counted, or labels, and coordinates summed per label as fractions of the
    image."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(()))
        self.counts: Counter[str] = Counter()
        self.empty = self.filled = 0  # targets without and with items

    def add(self, target: Target) -> None:
        if target["kind"] == "options":
            self.answers[fold(target["options"][target["index"]])] += 1
        elif target["kind"] == "text":
            self.answers[target["text"]] += 1
        else:
            size = Frame.from_json(target["frame"]).size
            self.empty, self.filled = self.empty + (not target["items"]), self.filled + bool(target["items"])
            for item in target["items"]:
                self.answers[item["label"]] += 1
                coordinates = item[_COORDINATES[target["kind"]]]
                fractions = np.asarray(coordinates, np.float64) / np.resize(size, len(coordinates))
                for label in (fold(item["label"]), _ANY_LABEL):
                    self.sums[label] = self.sums[label] + fractions
                    self.counts[label] += 1

    def commonest(self) -> list[str]:
        """Answers by falling count; equal counts in alphabetical order, so that no record order shows."""
        return sorted(self.answers, key=lambda answer: (-self.answers[answer], answer))

    def mean(self, label: str) -> np.ndarray | None:
        return self.sums[label] / self.counts[label] if self.counts[label] else None


class Baseline:
    """fit(training items).predict(item) is a target. An item is a mapping with dataset, task, language, topic (may
    lack) and target."""

    def __init__(self, groups: Mapping[tuple[Any, ...], _Group]) -> None:
        self._groups = groups

    def predict(self, item: Mapping[str, Any]) -> Target | None:
        """The baseline's answer, spelled as the item's target, or None where training never had a task of its kind."""
        target = item["target"]
        groups = [self._groups[key] for key in _keys(item) if key in self._groups]
        if target["kind"] == "options":
            return _majority(target, groups)
        if target["kind"] == "text":
            return {"kind": "text", "text": groups[0].commonest()[0]} if groups else None
        return _mean_coordinates(target, groups)


def fit(items: Iterable[Mapping[str, Any]]) -> Baseline:
    groups: dict[tuple[Any, ...], _Group] = defaultdict(_Group)
    for item in items:
        for key in _keys(item):
            groups[key].add(item["target"])
    return Baseline(dict(groups))


def _keys(item: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """One key per level, finest first. Targets of another kind or number of axes are never in the same group."""
    target = item["target"]
    shape = (target["kind"], len(target["frame"]["size"]) if "frame" in target else 0)
    for level in _LEVELS:
        yield (*shape, *((name, item.get(name)) for name in level))


def _majority(target: Target, groups: list[_Group]) -> Target | None:
    options = [fold(option) for option in target["options"]]
    for group in groups:
        for answer in group.commonest():
            if answer in options:
                return {**target, "index": options.index(answer)}
    return {**target, "index": 0} if groups else None


def _mean_coordinates(target: Target, groups: list[_Group]) -> Target | None:
    key = _COORDINATES[target["kind"]]
    size = Frame.from_json(target["frame"]).size
    if not groups:
        return None
    if groups[0].empty > groups[0].filled:
        return {**target, "items": []}
    items = []
    for label in dict.fromkeys(item["label"] for item in target["items"]) or groups[0].commonest()[:1]:
        seen = [group.mean(name) for group in groups for name in (fold(label), _ANY_LABEL)]
        fractions = next((mean for mean in seen if mean is not None), None)
        if fractions is not None:
            items.append({"label": label, key: (fractions * np.resize(size, len(fractions))).tolist()})
    return {**target, "items": items} if items else None
