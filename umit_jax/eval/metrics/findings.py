"""Strict finding metrics of chest radiograph reports: the 14 CheXpert findings, read from both texts by rules.

The rules are ours (findings.yaml: terms, cues of negation and doubt, in English and Chinese), in the manner of NegEx
(Chapman et al. 2001). A report is cut into clauses; in each, a finding that is named is uncertain or negated where a
cue of doubt or of negation speaks of it, else present. Over the report, present wins over uncertain, uncertain over
negated. No Finding is present where a report has words and none of the others but Support Devices is present or
uncertain.

The metrics take present for positive and everything else for negative (uncertain too), as R2Gen does with CheXbert's
labels; an unparsed answer has no finding, not even No Finding. Micro: over all decisions. Macro: the mean over the 14
classes, a class that is neither true nor said counting 0, as in scikit-learn. _5: over CheXbert's five.
These labels are not CheXbert's: compare with tables of that (mode chexbert) only by name.

Reports count whose modality is DX, CR or RG, or which come from one of DATASETS; of other parts of the body such
reports say nothing, so a group in which no truth names a finding gives no metric.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from umit_jax.eval.bootstrap import Statistic
from umit_jax.eval.metrics import Item
from umit_jax.eval.normalise import fold

FINDINGS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
    "No Finding",
)
FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
PRESENT, UNCERTAIN, NEGATED = "present", "uncertain", "negated"
DATASETS = ("iu_xray", "mimic_cxr", "chexpert_plus", "padchest")
_RADIOGRAPHS = {"DX", "CR", "RG"}
_KINDS = ("precision", "recall", "f1")
NAMES = tuple(f"findings_{kind}_{average}" for average in ("micro", "macro") for kind in _KINDS)
NAMES += ("findings_f1_micro_5", "findings_f1_macro_5")

_SENTENCE = {"en": re.compile(r"[;:?!\n]|\.(?!\d)"), "zh": re.compile(r"[;:?!,\n。]|\.(?!\d)")}
_VERB = r"\b(?:is|are|was|were|be|been|has|have|had)\b(?:\W+\w+){0,3}?\W+"
_GAP = {"en": r"(?:\W+[\w/'-]+){0,7}?\W+", "zh": r"[^,;。]{0,8}?"}


def findings(items: Sequence[Item]) -> dict[str, Statistic]:
    """Items with text, all of one language; reports of other images than radiographs weigh nothing."""
    used = [_is_radiograph(item) for item in items]
    true_NC, said_NC = (np.zeros((len(items), len(FINDINGS)), bool) for _ in range(2))
    for n, item in enumerate(items):
        if used[n]:
            language = "zh" if item.language == "zh" else "en"
            true_NC[n] = _positive(item.truth["text"], language)
            said_NC[n] = _positive(item.answer["text"], language) if item.answer else False
    if not true_NC[:, :-1].any():
        return {}
    counts_N3C = np.stack([true_NC & said_NC, true_NC, said_NC], 1).astype(np.float64)
    sums_NK = counts_N3C.reshape(len(items), -1)
    five = [FINDINGS.index(name) for name in FIVE]
    values = {
        f"findings_{kind}_{average}": functools.partial(by_class, kind=kind, average=average, classes=None)
        for average in ("micro", "macro")
        for kind in _KINDS
    }
    for average in ("micro", "macro"):
        values[f"findings_f1_{average}_5"] = functools.partial(by_class, kind="f1", average=average, classes=five)
    return {name: Statistic(sums_NK, value, sum(used)) for name, value in values.items()}


def _is_radiograph(item: Item) -> bool:
    if item.modality is None:
        return item.dataset in DATASETS
    return set(item.modality.split("+")) <= _RADIOGRAPHS


@functools.lru_cache(maxsize=100_000)  # a truth is read for the answer, for the baseline and for each breakdown
def _positive(text: str, language: str) -> tuple[bool, ...]:
    labels = label(text, language)
    return tuple(labels.get(name) == PRESENT for name in FINDINGS)


def by_class(sums: np.ndarray, *, kind: str, average: str, classes: Sequence[int] | None) -> np.ndarray:
    """sums (..., 3 * 14) of hits, truths and answers by class -> metric."""
    counts = sums.reshape(*sums.shape[:-1], 3, len(FINDINGS))
    if classes is not None:
        counts = counts[..., list(classes)]
    if average == "micro":
        counts = counts.sum(-1, keepdims=True)
    hits, true, said = np.moveaxis(counts, -2, 0)
    below = {"precision": said, "recall": true, "f1": (true + said) / 2}[kind]
    return np.divide(hits, below, out=np.zeros_like(hits), where=below > 0).mean(-1)


def label(text: str, language: str) -> dict[str, str]:
    """{finding: present, uncertain or negated} of a report in "en" or "zh"; a finding it does not name is not there."""
    found: dict[str, str] = {}
    for clause in _clauses(fold(text), language):
        for name, state in _in_clause(clause, language):
            if found.get(name) != PRESENT and (state != NEGATED or name not in found):
                found[name] = state
    other = {found.get(name) for name in FINDINGS if name not in ("Support Devices", "No Finding")}
    if text.strip() and not other & {PRESENT, UNCERTAIN}:
        found["No Finding"] = PRESENT
    return found


def _in_clause(clause: str, language: str) -> Iterator[tuple[str, str]]:
    table = cues(language)
    clause = table.pseudo.sub(_blank, clause)
    for name, rule in _rules(language).items():
        here = rule.other.sub(_blank, clause) if rule.other else clause
        normal = rule.normal.search(here) if rule.normal else None
        mentions = list(rule.present.finditer(here))
        for match in mentions:
            yield name, _state(here[: match.end()], here[match.end() :], table)
        if normal and not mentions:
            doubted = table.uncertain_before.search(here[: normal.end()])
            denied = table.negated_before.search(normal[0])
            yield name, UNCERTAIN if doubted else PRESENT if denied else NEGATED


def _state(before: str, after: str, table: "Cues") -> str:
    """before: the clause up to the end of the finding; after: the rest. Of two cues before it, the first decides:
    "no evidence to suggest" denies, "cannot exclude" doubts."""
    doubt, denial = table.uncertain_before.search(before), table.negated_before.search(before)
    if doubt and not (denial and denial.start() < doubt.start()):
        return UNCERTAIN
    if denial:
        return NEGATED
    if table.uncertain_after.search(after):
        return UNCERTAIN
    return NEGATED if table.negated_after.search(after) else PRESENT


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


def _clauses(text: str, language: str) -> Iterator[str]:
    """Parts of a folded text in which one cue speaks for all findings."""
    table = cues(language)
    for sentence in _SENTENCE[language].split(text):
        for part in table.ends.split(sentence):
            start = 0
            for match in table.fresh.finditer(part) if table.fresh else ():
                if not re.search(r"\b(?:or|nor)\b", part[match.start() :]):
                    yield part[start : match.start()]
                    start = match.start()
            yield part[start:]


@dataclasses.dataclass(frozen=True)
class _Rule:
    present: re.Pattern[str]
    normal: re.Pattern[str] | None
    other: re.Pattern[str] | None


@dataclasses.dataclass(frozen=True)
class Cues:
    pseudo: re.Pattern[str]
    negated_before: re.Pattern[str]
    negated_after: re.Pattern[str]
    uncertain_before: re.Pattern[str]
    uncertain_after: re.Pattern[str]
    ends: re.Pattern[str]
    fresh: re.Pattern[str] | None


@functools.cache
def _table() -> dict[str, Any]:
    return yaml.safe_load(pathlib.Path(__file__).with_name("findings.yaml").read_text(encoding="utf-8"))


@functools.cache
def _rules(language: str) -> dict[str, _Rule]:
    rules = {}
    for name, languages in _table()["findings"].items():
        terms = {kind: _pattern(words, language) for kind, words in languages[language].items()}
        rules[name] = _Rule(terms["present"], terms.get("normal"), terms.get("other"))
    return rules


@functools.cache
def cues(language: str) -> Cues:
    words = _table()["cues"][language]
    patterns = {
        name: _pattern(words[name], language) for name in ("pseudo", "negated_before", "uncertain_before", "ends")
    }
    fresh = re.compile(rf"(?:,|\band\b)\s*(?={_pattern(words['fresh'], language).pattern})") if words["fresh"] else None
    behind = {kind: _behind(words, kind, language) for kind in ("negated_after", "uncertain_after")}
    return Cues(**patterns, **behind, fresh=fresh)


def _behind(words: Mapping[str, Sequence[str]], after: str, language: str) -> re.Pattern[str]:
    """Cues that stand behind a finding, with or without a verb."""
    at_once = _pattern(words[after.replace("after", "at_once")], language).pattern
    with_verb = rf"|{_VERB}(?:{_pattern(words[after], language).pattern})" if words[after] else ""
    return re.compile(at_once + with_verb)


def _pattern(terms: Sequence[str], language: str) -> re.Pattern[str]:
    """Any of the terms, the longest first."""
    return re.compile("|".join(_term(term, language) for term in sorted(terms, key=len, reverse=True)))


def _term(term: str, language: str) -> str:
    if language == "zh":
        return _GAP["zh"].join(re.escape(part) for part in term.split(".."))
    parts = [r"[\W]+".join(_word(word) for word in part.split()) for part in term.split(" .. ")]
    return r"(?<!\w)" + _GAP["en"].join(parts) + r"(?!\w)"


def _word(word: str) -> str:
    return re.escape(word[:-1]) + r"\w*" if word.endswith("*") else re.escape(word) + "s?"
