"""One row of somebody's training file -> turns and images; the forms that vision-language trainers read.

| form                   | keys                                                                                  |
| ms-swift, newer        | messages [{role, content}], images, objects {ref, bbox, bbox_type, image_id}          |
| ms-swift, older        | query, response, history [[query, response]], system, images                          |
| LLaVA                  | conversations (also spelt conversatons) [{from, value}], image                        |

`<image>` in a user's turn stands for the next image; where none stands, all come first. A system text, for which a
Record has no place, opens the first question.

Every answer of a Record is learned, all alike. So a row is refused, with its reason, where a message's `loss` or
`loss_scale` is 0 or anything but 1, and where it has a `rejected_response` (or `rejected_messages`), for learning
preferences.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.record import MEDIA_TOKEN, Turn
from data_pipelines.sources.make import RowError

TAG = "<image>"
_ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
_OPTION = re.compile(r"\s*(\d+)[:：]\s*(.*\S)\s*")


@dataclasses.dataclass(frozen=True)
class Talk:
    """turns: user and assistant in turn, with MEDIA_TOKEN for each image. images: as the row names them. objects:
    ms-swift's, empty without."""

    turns: tuple[Turn, ...]
    images: tuple[str, ...]
    objects: Mapping[str, Any]


def form_of(row: Mapping[str, Any]) -> str:
    """The key that says which form a row has, "" for none of them."""
    for key in ("messages", "conversations", "conversatons"):
        if isinstance(row.get(key), list):
            return key
    return "query" if "response" in row and "query" in row else ""


def read_talk(row: Mapping[str, Any]) -> Talk:
    """Raises RowError."""
    form = form_of(row)
    if not form:
        raise RowError("no messages, conversations, or query and response")
    said = _query(row) if form == "query" else [_message(item) for item in row[form]]
    if any(row.get(key) for key in ("videos", "video", "audios", "audio")):
        raise RowError("has video or audio")
    if any(row.get(key) for key in ("rejected_response", "rejected_messages")):
        raise RowError("has a rejected answer, for learning preferences")
    images = image_names(row)
    system = "\n".join(text for role, text in said if role == "system")
    said = [(role, text) for role, text in said if role != "system"]
    if not said or [role for role, _ in said] != ["user", "assistant"] * (len(said) // 2):
        raise RowError("turns are not question and answer in turn")
    if system:
        said[0] = ("user", f"{system}\n{said[0][1]}")
    said = [(role, text.replace(MEDIA_TOKEN, " ").strip()) for role, text in said]
    tags = sum(text.count(TAG) for role, text in said if role == "user")
    if tags == 0:
        said[0] = ("user", TAG * len(images) + said[0][1])
    elif tags != len(images):
        raise RowError("number of <image> tags and of images differ")
    if any(TAG in text for role, text in said if role == "assistant"):
        raise RowError("<image> tag in an answer")
    if not all(text.replace(TAG, "").strip() for _, text in said):
        raise RowError("empty turn")
    objects = row.get("objects")
    turns = tuple(Turn(role, re.sub(rf"{TAG}\n?|\n{TAG}$", MEDIA_TOKEN, text)) for role, text in said)
    return Talk(turns, images, objects if isinstance(objects, dict) else {})


def _message(item: Any) -> tuple[str, str]:
    """(role, text)"""
    if not isinstance(item, dict):
        raise RowError("turn is no object")
    role = _ROLES.get(str(item.get("role", item.get("from", ""))).lower())
    text = item.get("content", item.get("value"))
    if role is None:
        raise RowError("unknown role")
    for key in ("loss", "loss_scale") if role == "assistant" else ():
        weight = item.get(key)
        if weight == 0:
            raise RowError(f"answer that is not to be learned ({key})")
        if weight not in (None, 1):
            raise RowError(f"{key} is neither 0 nor 1")
    if isinstance(text, list):  # parts, as in OpenAI's form
        text = "".join(TAG if _part(part) == "image" else str(part.get("text", "")) for part in text)
    if not isinstance(text, str):
        raise RowError("turn without text")
    return role, text


def _part(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in ("text", "image"):
        raise RowError("part of a turn is neither text nor image")
    return kind


def _query(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise RowError("history is no list of pairs")
    texts = [text for pair in [*history, [row["query"], row["response"]]] for text in pair]
    if not all(isinstance(text, str) for text in texts):
        raise RowError("turn without text")
    system = [("system", row["system"])] if isinstance(row.get("system"), str) and row["system"] else []
    return system + [(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]


def image_names(row: Mapping[str, Any], keys: Sequence[str] = ("images", "image")) -> tuple[str, ...]:
    """The names under the first of the keys that has any. Raises RowError for an image that is not a file's name."""
    value = next((row[key] for key in keys if row.get(key)), [])
    names = []
    for item in value if isinstance(value, list) else [value]:
        name = item.get("path") if isinstance(item, dict) else item
        if not isinstance(name, str) or not name:
            raise RowError("image is no file name")
        if re.match(r"\w+://|data:", name):
            raise RowError("image is an address, not a file")
        names.append(name)
    return tuple(names)


def listed_options(question: str, answer: str) -> tuple[list[str], int, int] | None:
    """(options, index, first number) where the question's last lines number options from 0 or 1 and the answer is one
    of those lines; otherwise None."""
    options: list[tuple[int, str]] = []
    for line in reversed(question.splitlines()):
        found = _OPTION.fullmatch(line)
        if found is None:
            break
        options.insert(0, (int(found[1]), found[2]))
    said = _OPTION.fullmatch(answer)
    numbers = [number for number, _ in options]
    if said is None or len(options) < 2 or numbers[0] not in (0, 1):
        return None
    texts = [text for _, text in options]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))) or len(set(texts)) != len(texts):
        return None
    named = (int(said[1]), said[2])
    return (texts, options.index(named), numbers[0]) if named in options else None


def language_of(turns: Sequence[Turn]) -> str:
    """zh where a turn has a Chinese character."""
    return "zh" if any(re.search("[\u4e00-\u9fff]", turn.text) for turn in turns) else "en"
