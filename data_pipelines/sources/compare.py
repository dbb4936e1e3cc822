"""Two captions -> what their images have in common and how they differ, without a model of language.

| said                | found as                                                                             |
| in both             | sentences that both captions have, then runs of words that both have                 |
| of the first, of    | the sentences of its caption that the other does not have, as they are               |
| the second          |                                                                                      |

A run counts when it has two words or more and one of them carries meaning. Which images make a pair is the caller's.
"""

import difflib
import re

from data_pipelines.prompts import join, say

_LONGEST = 200  # words of a caption that are compared
_PHRASES = 3
_EMPTY = frozenset(
    ("with", "from", "that", "this", "these", "those", "were", "which", "into", "than", "then", "have", "been", "also")
)


def compared(first: str, second: str, language: str, *, one_figure: bool) -> str | None:
    """What a pair is answered with; None where the captions tell nothing of both, or do not tell them apart.

    one_figure: the images are parts of one figure, which is then said, and is enough to have in common.
    """
    a, b = _sentences(first), _sentences(second)
    if a == b:
        return say("lists/figure", language, text=first) if one_figure else None
    shared = [s for s in a if s in b]
    rest = [[s for s in sentences if s not in shared] for sentences in (a, b)]
    both = [_ended(phrase, language) for phrase in common_phrases(" ".join(rest[0]), " ".join(rest[1]))]
    parts = [say("lists/parts", language)] if one_figure else []
    if shared or both:
        parts.append(say("lists/both", language, text=join([*shared, *both], language)))
    if not parts:
        return None
    for kind, sentences in zip(("first", "second"), rest, strict=True):
        if sentences:
            parts.append(say(f"lists/{kind}", language, text=join(sentences, language)))
    return join(parts, language)


def common_phrases(first: str, second: str) -> list[str]:
    """Runs of words in both texts, as the first spells them, the longest first; at most three."""
    a, b = (text.split()[:_LONGEST] for text in (first, second))
    bare = [[re.sub(r"^\W+|\W+$", "", word).lower() for word in words] for words in (a, b)]
    matcher = difflib.SequenceMatcher(None, bare[0], bare[1], autojunk=False)
    found = []
    for match in matcher.get_matching_blocks():
        words = bare[0][match.a : match.a + match.size]
        if sum(map(bool, words)) >= 2 and any(len(word) >= 4 and word not in _EMPTY for word in words):
            found.append(re.sub(r"^\W+|\W+$", "", " ".join(a[match.a : match.a + match.size])))
    longest = sorted(dict.fromkeys(found), key=lambda phrase: -len(phrase.split()))
    return longest[:_PHRASES]


def _sentences(text: str) -> list[str]:
    """Sentences as they are; a full stop inside a number or after a single letter ends none."""
    pieces = re.split(r"(?<=[^\W\d_]{2}[.!?])\s+|(?<=[)\]%\d][.!?])\s+|(?<=[。！？])", text)
    return [piece.strip() for piece in pieces if piece.strip()]


def _ended(phrase: str, language: str) -> str:
    return phrase + (". " if language == "en" else "。").strip()
