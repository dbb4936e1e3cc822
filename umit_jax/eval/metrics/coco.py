"""Report metrics as pycocoevalcap computes them: BLEU and ROUGE-L here, METEOR and its tokenizer by its Java programs.

METEOR 1.5 (Denkowski and Lavie 2014, English: alpha 0.85, beta 0.2, gamma 0.6, delta 0.75) needs Java and the package
pycocoevalcap (`pip install 'umit_jax[report]'`), which carries meteor-1.5.jar. The program aligns answer and truth and
returns 23 numbers a report; corpus METEOR is a function of their sums, so it gets its interval as BLEU does.

BLEU: over the corpus, words split at white space, 1e-15 and 1e-9 added to matches and n-grams. ROUGE-L: beta = 1.2,
words split at single spaces, the mean over reports. PTB tokens: CoreNLP 3.4.1 in lower case without punctuation.
"""

import atexit
import functools
import importlib.util
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

import numpy as np

from umit_jax.eval.bootstrap import Statistic, mean
from umit_jax.eval.metrics import Item
from umit_jax.eval.metrics.cider import cider
from umit_jax.eval.metrics.texts import longest_common, said, true_text

ORDERS = 4
BLEU_ROUGE = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l")
PTB_NAMES = (*BLEU_ROUGE, "cider", "meteor")
_TINY, _SMALL = 1e-15, 1e-9
_BETA = 1.2
_STAGES = (1.0, 0.6, 0.8, 0.6)  # weights of exact, stemmed, synonymous and paraphrased matches
_ALPHA, _METEOR_BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_PUNCTUATION = frozenset(("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", *".?!,:-;", "--", "..."))


class JavaError(RuntimeError):
    """A Java program of pycocoevalcap did not answer."""


@functools.cache
def missing() -> str | None:
    """Why METEOR and the PTB tokenizer cannot run here, or None where they can."""
    if importlib.util.find_spec("pycocoevalcap") is None:
        return "needs the package pycocoevalcap: pip install 'umit_jax[report]'"
    return None if shutil.which("java") else "needs a Java runtime on the PATH"


def available() -> bool:
    return missing() is None


def report_meteor(items: Sequence[Item]) -> dict[str, Statistic]:
    """METEOR of the texts as they are, by the program's own normalisation. English items with text."""
    if any(item.language != "en" for item in items):
        return {}
    return meteor([true_text(item) for item in items], [said(item) for item in items])


def report_ptb(items: Sequence[Item]) -> dict[str, Statistic]:
    """BLEU, ROUGE-L, CIDEr and METEOR of PTB tokens, pycocoevalcap's whole way. English items with text."""
    if any(item.language != "en" for item in items):
        return {}
    truths = ptb_tokens([true_text(item) for item in items])
    answers = ptb_tokens([said(item) for item in items])
    ciders = cider([t.split() for t in truths], [a.split() for a in answers])
    return {**bleu_and_rouge(truths, answers), "cider": mean(ciders), **meteor(truths, answers)}


def bleu_and_rouge(truths: Sequence[str], answers: Sequence[str]) -> dict[str, Statistic]:
    """Texts whose tokens stand between spaces."""
    counts_NK = np.stack([_counts(t.split(), a.split()) for t, a in zip(truths, answers, strict=True)])
    bleus = {
        f"bleu{order}": Statistic(counts_NK, functools.partial(_bleu, order=order), len(truths))
        for order in range(1, ORDERS + 1)
    }
    rouge = [_rouge_l(t.split(" "), a.split(" ")) for t, a in zip(truths, answers, strict=True)]
    return {**bleus, "rouge_l": mean(rouge)}


def _counts(truth: list[str], answer: list[str]) -> np.ndarray:
    """Matching n-grams for n = 1..4, n-grams said, words said, words of the truth."""
    matches, totals = [], []
    for order in range(1, ORDERS + 1):
        true, given = (
            [tuple(words[i : i + order]) for i in range(len(words) - order + 1)] for words in (truth, answer)
        )
        matches.append(sum(min(given.count(ngram), true.count(ngram)) for ngram in set(given)))
        totals.append(len(given))
    return np.array([*matches, *totals, len(answer), len(truth)], np.float64)


def _bleu(sums: np.ndarray, *, order: int) -> np.ndarray:
    """sums (..., 10) -> BLEU of that order."""
    matches, totals = sums[..., :order], sums[..., ORDERS : ORDERS + order]
    precision = np.exp(np.log((matches + _TINY) / (totals + _SMALL)).mean(-1))
    ratio = (sums[..., -2] + _TINY) / (sums[..., -1] + _SMALL)
    return precision * np.exp(np.minimum(0, 1 - 1 / ratio))


def _rouge_l(truth: list[str], answer: list[str]) -> float:
    common = len(longest_common(truth, answer))
    precision, recall = common / len(answer), common / len(truth)
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision) if common else 0.0


def meteor(truths: Sequence[str], answers: Sequence[str]) -> dict[str, Statistic]:
    """{"meteor": corpus METEOR}. Raises JavaError."""
    sums_NK = np.array([_aligned(truth, answer) for truth, answer in zip(truths, answers, strict=True)])
    return {"meteor": Statistic(sums_NK, meteor_value, len(truths))}


def meteor_value(sums: np.ndarray) -> np.ndarray:
    """sums (..., 23) of the program's statistics -> METEOR.

    Lengths and function words of answer and truth; for each stage the matched content words of answer and truth and
    the matched function words of both; chunks; matched words of answer and truth.
    """
    stages = sums[..., 4:20].reshape(*sums.shape[:-1], len(_STAGES), 4)
    weights = np.array(_STAGES)[:, None]
    content, function = (stages[..., :2] * weights).sum(-2), (stages[..., 2:] * weights).sum(-2)
    lengths, functions = sums[..., :2], sums[..., 2:4]
    all_words = _DELTA * (lengths - functions) + (1 - _DELTA) * functions
    matched = _DELTA * content + (1 - _DELTA) * function
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = np.moveaxis(np.where(all_words > 0, matched / all_words, 0), -1, 0)
        mean_f = precision * recall / (_ALPHA * precision + (1 - _ALPHA) * recall)
        chunks, matches = sums[..., 20], sums[..., 21:23]
        whole = (chunks == 1) & (matches == lengths).all(-1)  # one chunk that is all of both texts is no fragment
        fragments = np.where(whole, 0, chunks / (matches.sum(-1) / 2))
        value = mean_f * (1 - _GAMMA * fragments**_METEOR_BETA)
    return np.where((precision > 0) & (recall > 0), value, 0.0)


def _directory() -> pathlib.Path:
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise JavaError(str(missing()))
    return pathlib.Path(spec.submodule_search_locations[0])


@functools.cache
def _program() -> subprocess.Popen[str]:
    """METEOR, started once: it reads its paraphrases for seconds."""
    command = ["java", "-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"]
    pipe = subprocess.PIPE
    program = subprocess.Popen(
        command, cwd=_directory() / "meteor", stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, encoding="utf-8"
    )
    atexit.register(program.kill)
    return program


@functools.lru_cache(maxsize=100_000)
def _aligned(truth: str, answer: str) -> tuple[float, ...]:
    """The program's 23 statistics of one report."""
    program = _program()
    if program.stdin is None or program.stdout is None:
        raise JavaError("METEOR has no pipes")
    texts = [" ".join(text.replace("|||", " ").split()) for text in (truth, answer)]
    program.stdin.write("SCORE ||| " + " ||| ".join(texts) + "\n")
    program.stdin.flush()
    numbers = program.stdout.readline().split()
    if len(numbers) != 23:
        raise JavaError(f"METEOR: expected 23 statistics, found {len(numbers)}: is its Java working?")
    return tuple(float(number) for number in numbers)


def ptb_tokens(texts: Sequence[str]) -> list[str]:
    """Each text as PTB tokens between spaces. Raises JavaError."""
    lines = [" ".join(text.split()) for text in texts]
    jar = _directory() / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:  # readable by this user only
        file.write("\n".join(lines))
        file.flush()
        command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
        done = subprocess.run([*command, file.name], capture_output=True, encoding="utf-8", check=False)
    found = done.stdout.split("\n")
    found = found[: len(lines)] if len(found) > len(lines) and not any(found[len(lines) :]) else found
    if done.returncode or len(found) != len(lines):
        raise JavaError(f"PTB tokenizer: expected {len(lines)} lines, found {len(found)}: is its Java working?")
    return [" ".join(word for word in line.rstrip().split(" ") if word not in _PUNCTUATION) for line in found]
