"""Mode llava_med: VQA as LLaVA-Med v1.0.0 scores it (llava/eval/run_eval.py and eval_metrics/), to the letter.

Both texts are lower-cased and normalised as in the VQA challenge: numerals for number words, no articles, most
punctuation gone. What its names mean:

- closed_accuracy: the answer contains "yes" or "no" anywhere ("nodule" does), and the true answer anywhere; so a
  question whose options are not yes and no is nearly always wrong.
- token_recall: words of the answer that are in the truth, as often as the answer says them, over those and the words of
  the truth that are missing; saying a right word again raises it. token_precision and token_f1 go with it.
- exact_match is none: the different true words that were said, over the number of words said.
- bleu1, bleu2, bleu3: precision of n-grams of that one length times the brevity penalty; bleu4: nltk's sentence BLEU.

Mode llava_med_pathvqa is run_eval_pvqa.py, which forgets a closed question whose answer contains yes or no but not
the true answer: the denominator loses wrong answers. "Open accuracy" needs a list of candidate answers that was never
published, and is not given. Contractions with two apostrophes are left as they are.
"""

import re
from collections import Counter
from collections.abc import Sequence

from umit_jax.eval.bootstrap import Statistic, mean
from umit_jax.eval.metrics import Item
from umit_jax.eval.metrics.texts import said, sentence_bleu, true_text

OPEN_NAMES = ("token_recall", "token_precision", "token_f1", "exact_match", "bleu1", "bleu2", "bleu3", "bleu4")
_WEIGHTS = {"bleu1": (1, 0, 0, 0), "bleu2": (0, 1, 0, 0), "bleu3": (0, 0, 1, 0), "bleu4": (0.25,) * 4}

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMERALS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_NUMBERS = {word: str(i) for i, word in enumerate(_NUMERALS)} | {"none": "0"}
_ARTICLES = ("a", "an", "the")
_CONTRACTED = (
    "ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't mightn't mustn't needn't oughtn't"
    " shan't shouldn't wasn't weren't won't wouldn't could've might've must've not've should've we've what've who've"
    " would've they've you've he'd how'd it'd there'd they'd where'd who'd you'd someone'd how'll it'll somebody'll"
    " someone'll something'll they'll what'll who'll why'll you'll there're they're what're why're you're he's how's"
    " somebody's someone's that's there's what's when's where's who's why's let's she's ma'am o'clock 'twas y'all"
)
_APOSTROPHES = {word.replace("'", ""): word for word in _CONTRACTED.split()}
_PERIODS = 32  # it removes so many full stops and no more


def closed(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with options."""
    return {"closed_accuracy": mean([_hit(item) for item in items])}


def closed_pathvqa(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with options; wrong answers with yes or no in them are not counted at all."""
    hits = [_hit(item) for item in items]
    counted = [hit or not _names_yes_or_no(item) for hit, item in zip(hits, items, strict=True)]
    return {"closed_accuracy": mean(hits, counted)}


def open_ended(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with text."""
    rows = [_open_scores(normalised(true_text(item)), normalised(said(item))) for item in items]
    return {name: mean([row[name] for row in rows]) for name in OPEN_NAMES}


def _names_yes_or_no(item: Item) -> bool:
    answer = normalised(said(item))
    return "yes" in answer or "no" in answer


def _hit(item: Item) -> bool:
    return _names_yes_or_no(item) and normalised(true_text(item)) in normalised(said(item))


def normalised(text: str) -> str:
    """A text as this convention compares it."""
    text = text.lower()
    kept = text
    comma_in_number = re.search(r"\d,\d", text) is not None
    for mark in _PUNCTUATION:
        beside_a_space = mark + " " in text or " " + mark in text
        kept = kept.replace(mark, "" if beside_a_space or comma_in_number else " ")
    words = re.sub(r"\.(?!\d)", "", kept, count=_PERIODS).split()
    words = [_NUMBERS.get(word, word) for word in words]
    return " ".join(_APOSTROPHES.get(word, word) for word in words if word not in _ARTICLES)


def _open_scores(truth: str, answer: str) -> dict[str, float]:
    true, given = Counter(normalised(truth).split()), Counter(normalised(answer).split())
    shared = true.keys() & given.keys()
    hits = sum(given[word] for word in shared)
    missed = sum(count for word, count in true.items() if word not in shared)
    precision = hits / given.total() if given else 0.0
    recall = hits / (hits + missed) if hits else 0.0
    return {
        "token_recall": recall,
        "token_precision": precision,
        "token_f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
        "exact_match": len(shared) / given.total() if given else 0.0,
        **{name: sentence_bleu(truth.split(), answer.split(), weights) for name, weights in _WEIGHTS.items()},
    }
