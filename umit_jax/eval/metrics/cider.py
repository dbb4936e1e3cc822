"""CIDEr-D (Vedantam, Zitnick and Parikh 2015) as pycocoevalcap computes it, for one reference a report.

For n = 1..4, a text is the vector of its n-grams' tf-idf: count times log(N / df), where df is the number of the N
references with that n-gram (at least 1). The score of a report is 10 times the mean over n of the cosine between the
vectors of answer and reference, the answer's weights clipped to the reference's, times exp(-d^2 / 72) for a difference
of d tokens in length. So it depends on the whole test set, reaches 10 and not 1, and is 0 for a single report.
"""

import math
from collections import Counter
from collections.abc import Sequence

ORDERS = 4
_SIGMA = 6.0
Vector = dict[tuple[str, ...], float]


def cider(truths: Sequence[Sequence[str]], said: Sequence[Sequence[str]]) -> list[float]:
    """One score (0 to 10) for each pair of token lists."""
    truth_counts, said_counts = [_ngrams(t) for t in truths], [_ngrams(s) for s in said]
    frequency = Counter(ngram for counts in truth_counts for ngram in counts)
    documents = math.log(len(truths)) if truths else 0.0

    def vectors(counts: Counter[tuple[str, ...]]) -> list[Vector]:
        weights: list[Vector] = [{} for _ in range(ORDERS)]
        for ngram, count in counts.items():
            weights[len(ngram) - 1][ngram] = count * (documents - math.log(max(1, frequency[ngram])))
        return weights

    scores = []
    for truth, answer, true, given in zip(truth_counts, said_counts, truths, said, strict=True):
        # pycocoevalcap takes the number of pairs for the length: one less than the tokens, and 0 for none
        difference = max(len(given) - 1, 0) - max(len(true) - 1, 0)
        penalty = math.exp(-(difference**2) / (2 * _SIGMA**2))
        cosines = [_clipped_cosine(a, t) for a, t in zip(vectors(answer), vectors(truth), strict=True)]
        scores.append(10 * penalty * sum(cosines) / ORDERS)
    return scores


def _ngrams(tokens: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(
        tuple(tokens[i : i + order]) for order in range(1, ORDERS + 1) for i in range(len(tokens) - order + 1)
    )


def _clipped_cosine(answer: Vector, truth: Vector) -> float:
    norms = math.sqrt(sum(w * w for w in answer.values())) * math.sqrt(sum(w * w for w in truth.values()))
    shared = sum(min(weight, truth[ngram]) * truth[ngram] for ngram, weight in answer.items() if ngram in truth)
    return shared / norms if norms else shared
