"""Mode vila_m3: VQA as MONAI's VILA-M3 scores it: the answer equals the truth in lower case, and nothing else counts.

m3/eval/scripts/metric_{radvqa,slakevqa,pathvqa}.py. Its tables are over parts of the test sets: VQA-RAD's closed
questions of phrase type test_freeform and test_para, PathVQA's yes/no questions, SLAKE in English; choose the same
questions before comparing. Its reports are scored by pycocoevalcap (coco.py).
"""

from collections.abc import Sequence

from umit_jax.eval.bootstrap import Statistic, mean
from umit_jax.eval.metrics import Item
from umit_jax.eval.metrics.texts import said, true_text


def closed(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with options."""
    return {"closed_accuracy": _equal(items)}


def open_ended(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with text."""
    return {"exact_match": _equal(items)}


def _equal(items: Sequence[Item]) -> Statistic:
    return mean([said(item).lower() == true_text(item).lower() for item in items])
