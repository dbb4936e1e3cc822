"""Strict report metrics, one language at a time: corpus BLEU-1 to 4 and ROUGE-L as fractions, and CIDEr (0 to 10).

| metric       | English                                        | Chinese                                              |
| bleu1..bleu4 | sacrebleu, tokenizer 13a, case kept, exp smoothing | sacrebleu, tokenizer zh (characters), folded     |
| rouge_l      | rouge-score, no stemming, mean F over reports  | the same over normalise.chinese_characters           |
| cider        | CIDEr-D over 13a tokens, lower case, without punctuation | CIDEr-D over normalise.chinese_characters  |

bleuN is the geometric mean of the 1..N-gram precisions with the brevity penalty, over the corpus, one reference a
report: `sacrebleu --max-ngram-order N`. Chinese texts are first folded in width and case, as for the other two, and
Chinese full stops and quotation marks become ASCII ones (NFKC keeps them); punctuation still counts. An empty or
unparsed answer is an empty hypothesis, not left out.
"""

import functools
import logging
from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics import BLEU

from umit_jax.eval.bootstrap import Statistic, mean
from umit_jax.eval.metrics import Item
from umit_jax.eval.metrics.cider import cider
from umit_jax.eval.normalise import chinese_characters, drop_special_tokens, fold

ORDERS = 4
BLEU_NAMES = tuple(f"bleu{order}" for order in range(1, ORDERS + 1))
_CHINESE_MARKS = str.maketrans("。“”‘’", ".\"\"''")
NAMES = (*BLEU_NAMES, "rouge_l", "cider")


def report(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with text, all of one language."""
    languages = {item.language for item in items}
    if len(languages) != 1:
        raise ValueError(f"report metrics are per language, found {sorted(languages)}")
    said = [item.answer["text"] if item.answer else "" for item in items]
    truths = [item.truth["text"] for item in items]
    (language,) = languages
    scorer = _rouge(language)
    rouge = [scorer.score(truth, answer)["rougeL"].fmeasure for truth, answer in zip(truths, said, strict=True)]
    counts_NK = np.stack([_bleu_counts(truth, answer, language) for truth, answer in zip(truths, said, strict=True)])
    bleus = {
        name: Statistic(counts_NK, functools.partial(_bleu, order=order), len(items))
        for order, name in enumerate(BLEU_NAMES, 1)
    }
    ciders = cider([words(truth, language) for truth in truths], [words(answer, language) for answer in said])
    return {**bleus, "rouge_l": mean(rouge), "cider": mean(ciders)}


def words(text: str, language: str) -> list[str]:
    """Tokens of a report in lower case, without punctuation."""
    if language == "zh":
        return chinese_characters(text)
    return [token for token in tokens_13a(fold(text)) if any(map(str.isalnum, token))]


def tokens_13a(text: str) -> list[str]:
    """mteval's tokens, as sacrebleu makes them."""
    return _tokenizer()(text).split()


@functools.cache
def _tokenizer():
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()


@functools.cache
def _sacrebleu(language: str) -> BLEU:
    # effective_order changes only the sentence score, which is not read; without it sacrebleu logs a warning a line
    return BLEU(tokenize="zh" if language == "zh" else "13a", max_ngram_order=ORDERS, effective_order=True)


def _bleu_counts(truth: str, said: str, language: str) -> np.ndarray:
    """Matching n-grams for n = 1..4, n-grams said, tokens said, tokens of the truth: sums of these make corpus BLEU."""
    if language == "zh":
        truth, said = _folded(truth), _folded(said)
    score = _sacrebleu(language).sentence_score(said, [truth])
    return np.array([*score.counts, *score.totals, score.sys_len, score.ref_len], np.float64)


def _folded(text: str) -> str:
    return fold(drop_special_tokens(text, " ")).translate(_CHINESE_MARKS)


def _bleu(sums: np.ndarray, *, order: int) -> np.ndarray:
    """sums (..., 10) -> BLEU of that order as a fraction."""
    flat = sums.reshape(-1, sums.shape[-1])
    values = [
        BLEU.compute_bleu(
            correct=[int(c) for c in row[:order]],
            total=[int(t) for t in row[ORDERS : ORDERS + order]],
            sys_len=int(row[-2]),
            ref_len=int(row[-1]),
            smooth_method="exp",
            max_ngram_order=order,
        ).score
        for row in flat
    ]
    return np.array(values).reshape(sums.shape[:-1]) / 100


class _Characters:
    """rouge-score's tokenizer interface over Chinese characters."""

    def tokenize(self, text: str) -> list[str]:
        return chinese_characters(text)


@functools.cache
def _rouge(language: str):
    from rouge_score import rouge_scorer  # imports nltk: slow, wanted only here

    logging.getLogger("absl").setLevel(logging.WARNING)  # it announces its default tokenizer
    return rouge_scorer.RougeScorer(["rougeL"], tokenizer=_Characters() if language == "zh" else None)
