"""Report metrics that a trained model computes: CheXbert, RadGraph, GREEN, through their authors' packages.

| mode     | package      | metrics                                                                             |
| chexbert | f1chexbert   | f1_micro, f1_macro of the 14 findings, f1_micro_5, f1_macro_5 of five               |
| radgraph | radgraph     | radgraph_simple, radgraph_partial (the one papers mean), radgraph_complete          |
| green    | green_score  | green                                                                               |

None is a dependency: each brings torch and downloads gigabytes of weights at its first use, some of them under terms of
their own, and GREEN wants a GPU. The packages are imported when their mode is asked for. What is tested is that they
get texts in the right order and that their answers are read; never yet run with their weights here.
English only. An unparsed report is handed over as an empty text.
"""

import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from umit_jax.eval.bootstrap import Statistic, mean
from umit_jax.eval.metrics import Item
from umit_jax.eval.metrics.findings import FINDINGS, FIVE, by_class
from umit_jax.eval.metrics.texts import true_text

CHEXBERT_NAMES = ("f1_micro", "f1_macro", "f1_micro_5", "f1_macro_5")
RADGRAPH_NAMES = ("radgraph_simple", "radgraph_partial", "radgraph_complete")
GREEN_MODEL = "StanfordAIMI/GREEN-radllama2-7b"
_FIVE = tuple(FINDINGS.index(name) for name in FIVE)


def missing(package: str) -> Callable[[], str | None]:
    """A function that says why a package's metric cannot be computed, or None where it is installed."""

    def reason() -> str | None:
        found = importlib.util.find_spec(package) is not None
        return None if found else f"needs the package {package}, which is installed by hand (docs/metrics.md)"

    return reason


def available(package: str) -> bool:
    return missing(package)() is None


def chexbert(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with text. Uncertain counts as positive, as in the package; R2Gen counts it as negative."""
    if not _english(items):
        return {}
    model = _chexbert()
    # One report at a time: its own summary is of the whole corpus, and an interval needs each report's labels.
    labels = [[model.get_label(text) for text in texts] for texts in (_truths(items), _answers(items))]
    true_NC, said_NC = np.array(labels, bool)
    sums_NK = np.stack([true_NC & said_NC, true_NC, said_NC], 1).reshape(len(items), -1).astype(np.float64)
    return {
        f"f1_{average}{suffix}": Statistic(
            sums_NK, functools.partial(by_class, kind="f1", average=average, classes=classes), len(items)
        )
        for suffix, classes in (("", None), ("_5", _FIVE))
        for average in ("micro", "macro")
    }


def radgraph(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with text."""
    if not _english(items):
        return {}
    _, rewards, _, _ = _radgraph()(hyps=_answers(items), refs=_truths(items))
    return {name: mean([float(value) for value in row]) for name, row in zip(RADGRAPH_NAMES, rewards, strict=True)}


def green(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with text."""
    if not _english(items):
        return {}
    _, _, scores, _, _ = _green()(_truths(items), _answers(items))
    return {"green": mean([float(score) for score in scores])}


def _english(items: Sequence[Item]) -> bool:
    return all(item.language == "en" for item in items)


def _truths(items: Sequence[Item]) -> list[str]:
    return [true_text(item) for item in items]


def _answers(items: Sequence[Item]) -> list[str]:
    return [item.answer["text"] if item.answer else "" for item in items]


@functools.cache
def _chexbert() -> Any:
    return importlib.import_module("f1chexbert").F1CheXbert()


@functools.cache
def _radgraph() -> Any:
    return importlib.import_module("radgraph").F1RadGraph(reward_level="all", model_type="radgraph-xl")


@functools.cache
def _green() -> Any:
    return importlib.import_module("green_score").GREEN(GREEN_MODEL, output_dir=".")
