"""How sure a model was of each box it said: the geometric mean of the probabilities of the tokens that say it.

Which tokens say a box is found by reading the answer as it grows: a box is there once the text so far gives it and what
was before it. So any way of writing boxes that parse.py reads has confidences, label and brackets included.
"""

from collections.abc import Callable, Sequence

from umit_jax.infer.score import mean_probability
from umit_jax.targets import Target

_CLOSING = frozenset(")]}>】）｝］》")


def box_confidences(
    tokens: Sequence[int],
    logps: Sequence[float],
    decode: Callable[[Sequence[int]], str],
    read: Callable[[str], Target | None],
) -> list[float]:
    """One for each box of the answer, in its order; none where it has none. logps: log-probability of each token.
    decode gives the text of tokens, read the boxes of a text."""
    boxes = _items(read(decode(tokens)))
    confidences: list[float] = []
    start = 0
    for end in range(1, len(tokens) + 1):
        if len(confidences) == len(boxes):
            break
        last = end == len(tokens)
        if not last and not _CLOSING.intersection(decode(tokens[end - 1 : end])):
            continue
        there = _items(read(decode(tokens[:end])))
        same = next((i for i, box in enumerate(boxes) if there[i : i + 1] != [box]), len(boxes))
        if same > len(confidences):
            confidences += [mean_probability(logps[start:end])] * (same - len(confidences))
            start = end
    return confidences


def _items(target: Target | None) -> list[dict]:
    return target["items"] if target else []
