"""What the conventions of other projects read: the text that was said, and counts of shared words."""

import re
from collections.abc import Hashable, Sequence
from typing import TypeVar

from umit_jax.eval.metrics import Item
from umit_jax.eval.normalise import drop_special_tokens

_NUMBERED = re.compile(r"(\d{1,9})\s*[:：]\s*(?=\S)")
Token = TypeVar("Token", bound=Hashable)


def said(item: Item) -> str:
    """The text without special tokens and, for a choice between options, without the number that our own prompts ask
    for ("1:yes" is "yes"), which no other project's rule knows."""
    text = drop_special_tokens(item.text, " ").strip()
    if item.truth["kind"] == "options":
        number = _NUMBERED.match(text)
        if number and 0 <= int(number[1]) - item.truth["first"] < len(item.truth["options"]):
            return text[number.end() :]
    return text


def true_text(item: Item) -> str:
    """The true answer in words."""
    truth = item.truth
    return truth["options"][truth["index"]] if truth["kind"] == "options" else truth["text"]


def longest_common(a: Sequence[Token], b: Sequence[Token]) -> list[Token]:
    """A longest common subsequence. Of several, the one found from the end by going back in b before in a."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i][j] = table[i - 1][j - 1] + 1 if x == y else max(table[i - 1][j], table[i][j - 1])
    found, i, j = [], len(a), len(b)
    while i and j:
        if a[i - 1] == b[j - 1]:
            found.append(a[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found[::-1]


def sentence_bleu(truth: Sequence[str], answer: Sequence[str], weights: Sequence[float]) -> float:
    """nltk's BLEU of one text without smoothing: near 0 where an order of n-grams has no match; 0 for an empty one."""
    import warnings

    from nltk.translate import bleu_score  # slow to import, wanted only here

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of every n-gram order without a match
        return float(bleu_score.sentence_bleu([list(truth)], list(answer), weights=tuple(weights)))  # type: ignore[arg-type]
