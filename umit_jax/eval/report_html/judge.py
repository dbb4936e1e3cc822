"""What became of one question, for the page's filters: the strict metrics of it alone.

| truth          | right where the question scores 1 in | measured by                       |
| options        | closed_accuracy                      | nothing else                      |
| boxes          | acc_at_0.5 (every box, none spare)   | mean_iou                          |
| points         | sdr_4mm (unknown spacing: not judged) | mre_mm_parsed                    |
| text of VQA    | exact_match                          | token_f1                          |
| other text     | not judged                           | token_f1                          |

An answer that cannot be read is "unreadable"; the metrics count it as wrong.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Hashable, Sequence

from umit_jax.eval.metrics import Item, detect, landmark, vqa
from umit_jax.eval.predictions import Prediction, read
from umit_jax.targets import Target

RIGHT, WRONG, UNREADABLE, UNJUDGED = VERDICTS = ("right", "wrong", "unreadable", "unjudged")


@dataclasses.dataclass(frozen=True)
class Judged:
    """number: line of predictions.jsonl, from 1. measure, value: what a question of its kind is measured by, "" and
    None where there is nothing; problems: what was refused in the text."""

    number: int
    prediction: Prediction
    answer: Target | None
    problems: tuple[str, ...]
    verdict: str
    measure: str = ""
    value: float | None = None

    @property
    def about(self) -> tuple[Hashable, ...]:
        """What examples are chosen evenly over."""
        line = self.prediction
        return line["dataset"], line["task"], line["truth"]["kind"], line["language"], self.verdict


# kind of judgement: (metrics, the one that is 1 for a right answer, the one that measures)
_JUDGES = {
    "options": (vqa.closed, "closed_accuracy", ""),
    "boxes": (detect.detection, "acc_at_0.5", "mean_iou"),
    "points": (landmark.landmarks, "sdr_4mm", "mre_mm_parsed"),
    "answer": (vqa.open_ended, "exact_match", "token_f1"),
    "text": (vqa.open_ended, "", "token_f1"),
}


def judge(predictions: Sequence[Prediction]) -> list[Judged]:
    """Every prediction judged by itself, in order."""
    readings = [read(prediction) for prediction in predictions]
    groups: dict[str, list[int]] = defaultdict(list)
    for i, prediction in enumerate(predictions):
        kind = prediction["truth"]["kind"]
        groups["answer" if kind == "text" and prediction["task"] == "vqa" else kind].append(i)
    found: dict[int, Judged] = {}
    for name, members in groups.items():
        items = [Item(predictions[i]["truth"], readings[i].target, predictions[i]["language"]) for i in members]
        metrics, right_name, measure = _JUDGES[name]
        statistics = metrics(items)
        rights, values = (_of_each(statistics.get(metric), len(items)) for metric in (right_name, measure))
        for i, right, value in zip(members, rights, values, strict=True):
            verdict = UNJUDGED if right is None else RIGHT if right == 1 else WRONG
            if readings[i].target is None:
                verdict = UNREADABLE
            reading = readings[i]
            found[i] = Judged(i + 1, predictions[i], reading.target, reading.problems, verdict, measure, value)
    return [found[i] for i in range(len(predictions))]


def _of_each(statistic, count: int) -> list[float | None]:
    """The value of a mean for each sample of it, None for one that it leaves out or where there is no such metric."""
    if statistic is None:
        return [None] * count
    return [float(value) if used else None for value, used in statistic.sums_NK]


def evenly(groups: Sequence[Hashable], limit: int) -> list[int]:
    """Positions of at most `limit` members, taken evenly: no group gives more than another while that one has some
    left, and within a group they are evenly spaced. In order; 0 takes all, a negative limit none."""
    if limit < 0:
        return []
    if not limit or limit >= len(groups):
        return list(range(len(groups)))
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    chosen: list[int] = []
    waiting = sorted(members.values(), key=len)
    for taken, group in enumerate(waiting):
        share = min(len(group), (limit - len(chosen)) // (len(waiting) - taken))
        chosen += [group[k * len(group) // share] for k in range(share)]
    return sorted(chosen)
