"""Mode medevalkit: VQA and reports as MedEvalKit (Lingshu) scores them without its language-model judge.

Its utils/utils.py, utils/{VQA_RAD,PATH_VQA,SLAKE}/ and utils/Metrics_Compute/cal_report_metrics.py, to the letter:

- closed_accuracy: of a yes/no question, exactly one of "yes" and "no" is in the answer, and it is the truth. Of others,
  and of all of SLAKE's (which spells Yes and No), equality in lower case without full stops.
- exact_match: equality in lower case.
- bleu1..bleu4: nltk's sentence BLEU over words split at single spaces, then the mean.
- rouge1, rouge2, rouge_l: the package `rouge` over sets of words, so repeats do not count; sentences end at full stops.
- token_precision, token_recall, token_f1: over sets of words. The caller unpacks them in the wrong order: what it
  prints as precision is F1, as recall is precision, as F1 is recall; given here as printed.

An answer in \\boxed{} or <answer>, or after "answer:" and the like, is taken out first. Where the script ends with an
error (an empty answer) the score here is 0. Reports: an empty answer scores 0. Its "total" pools open and closed
questions; METEOR, CIDEr, RaTEScore and GREEN of reports are not given in this mode.
"""

import re
from collections.abc import Sequence

from umit_jax.eval.bootstrap import Statistic, mean
from umit_jax.eval.metrics import Item
from umit_jax.eval.metrics.texts import longest_common, said, sentence_bleu, true_text

REPORT_NAMES = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge1", "rouge2", "rouge_l")
OPEN_NAMES = ("exact_match", *REPORT_NAMES, "token_precision", "token_recall", "token_f1")
_CUES = ("**answer**:", "**answer**", "*answer*:", "**answer:**", "answer is", "answer:", "答案:", "final answer")
_SPELLS_YES_WITH_A_CAPITAL = ("slake",)
_EPSILON = 1e-8  # the package's own, in every F


def closed(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with options."""
    return {"closed_accuracy": mean([_is_right(item) for item in items])}


def open_ended(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with text."""
    rows = [_open_scores(true_text(item).lower().strip(), _answer(item)) for item in items]
    return {name: mean([row[name] for row in rows]) for name in OPEN_NAMES}


def report(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with text."""
    rows = [_text_scores(true_text(item).lower(), said(item).lower(), drop_empty=True) for item in items]
    return {name: mean([row[name] for row in rows]) for name in REPORT_NAMES}


def _is_right(item: Item) -> bool:
    truth = true_text(item).lower().strip()
    answer = _answer(item).replace("\n", "").replace(".", "")
    if truth in ("yes", "no") and item.dataset.lower() not in _SPELLS_YES_WITH_A_CAPITAL:
        return ("yes" in answer) != ("no" in answer) and truth in answer
    return answer == truth


def _answer(item: Item) -> str:
    """The answer inside what was said, in lower case."""
    text = said(item)
    boxed = _boxed(text)
    if boxed is not None:
        text = boxed
    elif tagged := " ".join(re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)):
        text = tagged
    text = text.lower().strip()
    for cue in _CUES:
        text = text.rsplit(cue, 1)[-1]
    return text


def _boxed(text: str) -> str | None:
    """The content of the last \\boxed{}, its braces balanced."""
    start = text.rfind("\\boxed{")
    depth = 0
    for i in range(start + len("\\boxed{"), len(text)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth < 0:
            return text[start + len("\\boxed{") : i].strip()
    return None


def _open_scores(truth: str, answer: str) -> dict[str, float]:
    true, given = set(truth.split()), set(answer.split())
    precision = len(true & given) / len(given) if given else 0.0
    recall = len(true & given) / len(true) if true else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    as_printed = {"token_precision": f1, "token_recall": precision, "token_f1": recall}
    return {"exact_match": float(answer == truth), **_text_scores(truth, answer), **as_printed}


def _text_scores(truth: str, answer: str, drop_empty: bool = False) -> dict[str, float]:
    """BLEU and ROUGE of lower-cased texts."""
    true, given = (text.replace(".", " .").split(" ") for text in (truth, answer))
    if drop_empty:
        true, given = (list(filter(None, words)) for words in (true, given))
    bleus = {f"bleu{n}": sentence_bleu(true, given, [1 / n] * n) for n in range(1, 5)} if answer else {}
    true, given = _sentences(truth), _sentences(answer)
    if not true or not given:
        return {**dict.fromkeys(REPORT_NAMES, 0.0), **bleus}
    common = {word for a in true for b in given for word in longest_common(a, b)}
    whole = [[word for sentence in text for word in sentence] for text in (true, given)]
    return {
        **bleus,
        "rouge1": _f(*(_ngrams(words, 1) for words in whole)),
        "rouge2": _f(*(_ngrams(words, 2) for words in whole)),
        "rouge_l": _f_of(len(common), len(set(whole[0])), len(set(whole[1]))),
    }


def _sentences(text: str) -> list[list[str]]:
    """Words of each sentence; white space between two full stops is a sentence of one empty word."""
    return [" ".join(sentence.split()).split(" ") for sentence in text.split(".") if sentence]


def _ngrams(words: Sequence[str], order: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + order]) for i in range(len(words) - order + 1)}


def _f(true: set[tuple[str, ...]], given: set[tuple[str, ...]]) -> float:
    return _f_of(len(true & given), len(true), len(given))


def _f_of(common: int, true: int, given: int) -> float:
    precision, recall = common / given if given else 0.0, common / true if true else 0.0
    return 2 * precision * recall / (precision + recall + _EPSILON)
