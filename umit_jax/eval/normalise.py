"""Spellings that count as the same answer: folding of width and case, and the words or characters of an answer.

| language | tokens of an answer                                                                                  |
| en       | SQuAD's: lower case, punctuation removed, a/an/the removed, split at spaces; but the point in 2.5 stays |
| zh       | CMRC 2018's: one token per Chinese character; a run of Latin letters or digits is one; no punctuation    |

Both start from Unicode NFKC, which folds full-width letters, digits and punctuation to their ASCII forms. Signs go with
the punctuation: 阴性(-) has the tokens of 阴性(+).
"""

import re
import unicodedata

_SPECIAL = re.compile(r"<\|[a-z_]+\|>")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_CHINESE_TOKEN = re.compile(rf"[{_CJK}]|(?:\d\.(?=\d)|[^\W{_CJK}_])+")


def drop_special_tokens(text: str, replacement: str = "") -> str:
    """Text without Qwen2-VL's special tokens, spelled <|name|>."""
    return _SPECIAL.sub(replacement, text)


def fold(text: str) -> str:
    """NFKC, case folded, runs of white space as one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def is_chinese(character: str) -> bool:
    return re.match(f"[{_CJK}]", character) is not None


def _keep(text: str, i: int) -> bool:
    """False for punctuation, except a point between two digits."""
    if unicodedata.category(text[i])[0] not in "PS":
        return True
    return text[i] == "." and text[i - 1 : i].isdigit() and text[i + 1 : i + 2].isdigit()


def english_words(text: str) -> list[str]:
    folded = fold(drop_special_tokens(text, " "))
    kept = "".join(character for i, character in enumerate(folded) if _keep(folded, i))
    return _ARTICLES.sub(" ", kept).split()


def chinese_characters(text: str) -> list[str]:
    return _CHINESE_TOKEN.findall(fold(drop_special_tokens(text, " ")))


def answer_tokens(text: str, language: str) -> list[str]:
    """Tokens that answers are compared by. Any language but "zh" is treated as English."""
    return chinese_characters(text) if language == "zh" else english_words(text)
