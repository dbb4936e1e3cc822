"""Mode m3d: questions, captions and 3D boxes as M3D's benchmark scores them (BAAI-DCAI/M3D, Bench/eval and utils.py).

- closed_accuracy: the letter of the true choice and a full stop ("B.") is anywhere in the answer; the number that our
  prompts ask for ("2:liver") is read as that letter. Its tables are by type of question: breakdown.json, topic;
  closed_accuracy_by_type is the mean over the types.
- bleu1: BLEU of order 1 of each text (evaluate's "bleu", max_order=1, sacrebleu's 13a tokens), then the mean.
- rouge1: F of shared words of each text (rouge-score, no stemming), then the mean.
- mean_iou: its "IoU" is the intersection over the volume of the box around both boxes, which is more than their union
  unless one lies behind the other along an axis; so it is at most the true IoU.
- acc_at_0.25, acc_at_0.5: the fraction of questions at that or more.

Its script takes the first box of an answer and of the truth, and writes -1 where there is none; here that counts 0. Its
boxes are fractions of (D, H, W) with the last voxel included; ours half-open: the ratio is taken of ours. METEOR
(nltk's, with WordNet) and BERTScore are not given.
"""

import math
import re
from collections.abc import Sequence

import numpy as np

from umit_jax.eval.bootstrap import Statistic, mean
from umit_jax.eval.metrics import Item
from umit_jax.eval.metrics.report import tokens_13a
from umit_jax.eval.metrics.texts import said, true_text
from umit_jax.eval.normalise import drop_special_tokens
from umit_jax.targets import Target

CLOSED_NAMES = ("closed_accuracy", "closed_accuracy_by_type")
BOX_NAMES = ("mean_iou", "acc_at_0.25", "acc_at_0.5")
TEXT_NAMES = ("bleu1", "rouge1")
_NUMBERED = re.compile(r"\s*(\d{1,9})\s*[:：]")
_EPSILON = 1e-6


def closed(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with options."""
    hits = [f"{_letter(item.truth['index'])}." in _lettered(item) for item in items]
    topics = {topic: i for i, topic in enumerate(dict.fromkeys(item.topic for item in items))}
    sums_NT2 = np.zeros((len(items), len(topics), 2))  # hits, questions
    for n, item in enumerate(items):
        sums_NT2[n, topics[item.topic]] = hits[n], 1
    columns = tuple((topic, part) for topic in topics for part in ("hits", "questions"))
    by_type = Statistic(sums_NT2.reshape(len(items), -1), _mean_of_types, len(items), columns=columns)
    return {"closed_accuracy": mean(hits), "closed_accuracy_by_type": by_type}


def _mean_of_types(sums: np.ndarray) -> np.ndarray:
    """sums (..., T * 2) -> the mean accuracy over the types that occur."""
    hits, questions = sums[..., ::2], sums[..., 1::2]
    return (hits / np.maximum(questions, 1)).sum(-1) / np.maximum((questions > 0).sum(-1), 1)


def texts(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with text."""
    pairs = [(true_text(item).strip(), said(item)) for item in items]
    return {"bleu1": mean([_bleu1(*pair) for pair in pairs]), "rouge1": mean([_rouge1(*pair) for pair in pairs])}


def boxes(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with boxes of three axes."""
    ratios = [_ratio(item.truth, item.answer) for item in items]
    reached = {f"acc_at_{limit}": mean([ratio >= limit for ratio in ratios]) for limit in (0.25, 0.5)}
    return {"mean_iou": mean(ratios), **reached}


def _letter(index: int) -> str:
    return chr(ord("A") + index)


def _lettered(item: Item) -> str:
    text = drop_special_tokens(item.text, " ")
    number = _NUMBERED.match(text)
    if number and 0 <= (index := int(number[1]) - item.truth["first"]) < len(item.truth["options"]):
        return f"{_letter(index)}. {text[number.end() :]}"
    return text


def _bleu1(truth: str, answer: str) -> float:
    true, given = tokens_13a(truth), tokens_13a(answer)
    if not given:
        return 0.0
    shared = sum(min(given.count(word), true.count(word)) for word in set(given))
    brevity = min(1.0, math.exp(1 - len(true) / len(given)))
    return brevity * shared / len(given)


def _rouge1(truth: str, answer: str) -> float:
    true, given = (re.findall(r"[a-z0-9]+", text.lower()) for text in (truth, answer))
    shared = sum(min(given.count(word), true.count(word)) for word in set(given))
    return 2 * shared / (len(true) + len(given)) if shared else 0.0


def _ratio(truth: Target, answer: Target | None) -> float:
    """Intersection over the volume of the box around both: the first box of each."""
    if answer is None or not answer["items"] or not truth["items"]:
        return 0.0
    a, b = (np.array(target["items"][0]["box"], np.float64) for target in (truth, answer))
    shared = np.prod(np.maximum(np.minimum(a[3:], b[3:]) - np.maximum(a[:3], b[:3]), 0))
    around = np.prod(np.maximum(a[3:], b[3:]) - np.minimum(a[:3], b[:3]))
    volume = np.prod([float(size) for size in truth["frame"]["size"]])
    return float(shared / (around + _EPSILON * volume))  # its boxes are fractions of the volume
