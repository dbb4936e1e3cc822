"""Answers to the same questions asked in another way, beside the answers to the questions as they are: robustness.json.

| key of a row     | meaning                                                                                     |
| variant          | how it was asked (data_pipelines/robustness.py): blank, swap, options, negated, flip, corrupt:.. |
| metric           | same_answer, same_option, opposite_answer, mirrored_answer, both_right, or a strict metric  |
| value, ci95      | over the questions that can be asked so, with an interval over patients                      |
| main             | a strict metric of the same questions as they are; null for the others                       |
| difference, difference_ci95, p | value - main, paired (bootstrap.compare)                                       |
| better           | which values speak for a model that looks: "higher" or "lower"                               |

Other keys are those of scores.json. same_answer and same_option: the share of answers that say the same as before;
opposite_answer and mirrored_answer: that name the other option of the pair. An answer that cannot be read is compared
by its text. both_right: right as asked, and right in the other way (ProbMed's accuracy over pairs).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from umit_jax.eval.bootstrap import Statistic, compare, interval, mean
from umit_jax.eval.modes import STRICT, check_modes
from umit_jax.eval.normalise import answer_tokens, fold
from umit_jax.eval.predictions import Prediction, PredictionError, identity, read
from umit_jax.eval.score import SCHEMA, clusters, grouped, n_patients, statistics

Row = dict[str, Any]
METRICS = ("closed_accuracy", "accuracy", "auc", "token_f1", "bleu4", "mean_iou", "mre_mm")
_LOOKS = {"blank": "lower", "swap": "lower"}  # of same_answer, where what is shown is gone or wrong
_NAMED = {"options": "same_option", "negated": "opposite_answer", "flip": "mirrored_answer"}


def robustness(main: Sequence[Prediction], variants: Mapping[str, Sequence[Prediction]]) -> list[Row]:
    """The rows of every variant. Raises PredictionError for a variant of a question that the main file has not."""
    known = {identity(prediction): prediction for prediction in main}
    rows: list[Row] = []
    for name, predictions in variants.items():
        strange = next((p for p in predictions if identity(p) not in known), None)
        if strange is not None:
            raise PredictionError(f"variant {name}: id {strange['id']!r} is not among the main predictions")
        for about, members in grouped(predictions):
            before = [known[identity(prediction)] for prediction in members]
            rows += [{"schema": SCHEMA, **about, "variant": name, **row} for row in _rows(name, before, members, about)]
    return rows


def _rows(name: str, before: list[Prediction], after: list[Prediction], about: Row) -> list[Row]:
    patients, n = clusters(after), n_patients(after)
    rows = []
    for metric, better, statistic in _agreements(name, before, after):
        ci95 = interval(statistic, patients)
        row = {"metric": metric, "value": statistic.point, "ci95": ci95 and list(ci95), "main": None}
        row |= {"difference": None, "difference_ci95": None, "p": None}
        rows.append(row | {"better": better, "n": statistic.count, "n_patients": n})
    modes = check_modes(())
    theirs, ours = statistics(about, before, modes), statistics(about, after, modes)
    for metric in METRICS:
        key = (STRICT, metric)
        if key not in ours or key not in theirs:
            continue
        ci95, paired = interval(ours[key], patients), compare(theirs[key], ours[key], patients)
        row = {"metric": metric, "value": ours[key].point, "ci95": ci95 and list(ci95), "main": theirs[key].point}
        row |= {"difference": paired.value, "difference_ci95": paired.ci95 and list(paired.ci95), "p": paired.p}
        higher = ours[key].higher_is_better != (name in _LOOKS)
        rows.append(row | {"better": "higher" if higher else "lower", "n": ours[key].count, "n_patients": n})
    return rows


def _agreements(name: str, before: list[Prediction], after: list[Prediction]) -> list[tuple[str, str, Statistic]]:
    """(metric, which values are better, statistic)."""
    pairs = list(zip(before, after, strict=True))
    kind = after[0]["truth"]["kind"]
    if kind not in ("options", "text"):
        return []
    metric = _NAMED.get(name)
    if metric in ("opposite_answer", "mirrored_answer"):
        agreed = mean([_other(a, b) for a, b in pairs])
        right = mean([_right(a) and _right(b) for a, b in pairs])
        return [(metric, "higher", agreed), ("both_right", "higher", right)]
    same = mean([_said(a) == _said(b) for a, b in pairs])
    return [(metric or "same_answer", _LOOKS.get(name, "higher"), same)]


def _said(prediction: Prediction) -> Any:
    """What an answer says, whatever number its option has."""
    answer = read(prediction).target
    if answer is None:
        return None, fold(prediction["text"])
    if answer["kind"] == "options":
        return fold(answer["options"][answer["index"]])
    return answer_tokens(answer["text"], prediction["language"])


def _right(prediction: Prediction) -> bool:
    answer = read(prediction).target
    return answer is not None and answer["index"] == prediction["truth"]["index"]


def _other(before: Prediction, after: Prediction) -> bool:
    """Whether the two answers name the two truths, in either order: the answer turned with the question."""
    truths = {before["truth"]["index"], after["truth"]["index"]}
    said = [read(prediction).target for prediction in (before, after)]
    return len(truths) == 2 and None not in said and {answer["index"] for answer in said if answer} == truths
