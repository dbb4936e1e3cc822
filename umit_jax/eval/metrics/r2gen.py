"""Mode r2gen: English reports as R2Gen scores them (zhjohnchan/R2Gen, modules/tokenizers.py, datasets.py, metrics.py).

The truth itself is changed before it is compared: cleaned and lower-cased, words that occur less than three times in
the training reports become <unk>, and all is cut after 59 words (99 for MIMIC-CXR): 60 tokens, the first of them the
start mark. The answer is cleaned the same way and not cut. Then pycocoevalcap's BLEU-1 to 4, ROUGE-L and METEOR
(coco.py), without its tokenizer. `rare_words` of a prediction says which words are rare; `umit eval` counts them in
the training split, and a line without them keeps every word.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from umit_jax.eval.bootstrap import Statistic
from umit_jax.eval.metrics import Item, coco
from umit_jax.eval.metrics.texts import said, true_text

RARE = 3  # occurrences that keep a word
_MIMIC = "mimic_cxr"  # has a cleaning and a length of its own
_LENGTH, _MIMIC_LENGTH = 60, 100
_UNKNOWN = "<unk>"
# The range :-[ is the original's: it takes ; < = > ? @ away too, and leaves the hyphen.
_MARKS = re.compile(r"[.,?;*!%^&_+():-\[\]{}\"/\\']")


def report(items: Sequence[Item]) -> dict[str, Statistic]:
    """English items with text: its words are what stands between spaces, and Chinese has none."""
    if any(item.language != "en" for item in items):
        return {}
    return coco.bleu_and_rouge(*_pairs(items))


def report_meteor(items: Sequence[Item]) -> dict[str, Statistic]:
    """English items with text."""
    if any(item.language != "en" for item in items):
        return {}
    return coco.meteor(*_pairs(items))


def _pairs(items: Sequence[Item]) -> tuple[list[str], list[str]]:
    """(references, answers)."""
    return [reference(item) for item in items], [" ".join(cleaned(said(item), item.dataset)) for item in items]


def reference(item: Item) -> str:
    """The truth as it is compared."""
    rare = set(item.rare_words)
    words = [_UNKNOWN if word in rare else word for word in cleaned(true_text(item), item.dataset)]
    return " ".join(words[: (_MIMIC_LENGTH if item.dataset == _MIMIC else _LENGTH) - 1])


def rare_words(truth: str, dataset: str, counts: Counter[str]) -> list[str]:
    """Words of a report that are too rare in the training reports, in alphabetical order."""
    return sorted({word for word in cleaned(truth, dataset) if counts[word] < RARE})


def count_words(reports: Iterable[str], dataset: str) -> Counter[str]:
    """How often each word occurs in the cleaned training reports."""
    return Counter(word for text in reports for word in cleaned(text, dataset))


def cleaned(text: str, dataset: str = "") -> list[str]:
    """Words of a report without numbering and punctuation, in lower case; a full stop after each sentence."""
    if dataset == _MIMIC:  # elsewhere a sentence that ends its line has no full stop of its own
        text = re.sub(" +", " ", text.replace("\n", " "))
    text = re.sub(r"\.\.+", ".", text).replace("1. ", "")
    for number in "2345":
        text = text.replace(f". {number}. ", ". ")
    for number in "2345":
        text = text.replace(f" {number}. ", ". ")
    sentences = [_MARKS.sub("", sentence) for sentence in text.strip().lower().split(". ")]
    return (" . ".join(sentences) + " .").split()
