"""Strict VQA metrics: accuracy of closed questions; token F1, token recall and exact match of open ones.

Token F1 is SQuAD's (Rajpurkar et al. 2016): the overlap of two bags of tokens, so that repeating a right word gains
nothing; recall is the overlap over the tokens of the truth. Exact match is equality of the token lists. Tokens are
normalise.answer_tokens: English words, Chinese characters. Means are over questions.
"""

from collections import Counter
from collections.abc import Sequence

from umit_jax.eval.bootstrap import Statistic, mean
from umit_jax.eval.metrics import Item
from umit_jax.eval.normalise import answer_tokens


def closed(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with options: the fraction answered with the right option."""
    return {"closed_accuracy": mean([is_right(item) for item in items])}


def is_right(item: Item) -> bool:
    return item.answer is not None and item.answer["index"] == item.truth["index"]


def open_ended(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with text."""
    scores = [_overlap(item) for item in items]
    return {name: mean([score[name] for score in scores]) for name in ("token_f1", "token_recall", "exact_match")}


def _overlap(item: Item) -> dict[str, float]:
    truth = answer_tokens(item.truth["text"], item.language)
    said = answer_tokens(item.answer["text"], item.language) if item.answer else []
    if not truth or not said:  # nothing but punctuation and articles: right only if both are
        equal = float(truth == said and item.answer is not None)
        return {"token_f1": equal, "token_recall": equal, "exact_match": equal}
    common = (Counter(truth) & Counter(said)).total()
    return {
        "token_f1": 2 * common / (len(truth) + len(said)),
        "token_recall": common / len(truth),
        "exact_match": float(truth == said),
    }
