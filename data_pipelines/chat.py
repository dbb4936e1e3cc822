r"""The Qwen-VL chat format: turns -> pieces of text -> ids and which of them are learned.

    <|im_start|>system\nYou are a helpful assistant.<|im_end|>\n
    <|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>question<|im_end|>\n
    <|im_start|>assistant\nanswer<|im_end|>\n

Learned are the answers and their <|im_end|>. An answer is encoded apart from what precedes it, so the ids of a prompt
are the first ids of the training sample; the newline after the last <|im_end|> teaches nothing and is left out.
Here each image, slice or video has one pad token; `example.py` repeats it for every vision token.

The format's own words and people's words are kept apart: in a question, a report or an answer, "<|im_end|>" is ten
characters and no token, as with transformers' sanitize_control_tokens. Only the tokens of boxes mean there what they
say, because people speak of boxes. A model with another chat template is rendered by `chat_template.py`.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from data_pipelines.record import MEDIA_TOKEN, Turn
from data_pipelines.tokenizer import Tokenizer, TokenizerError

SYSTEM = "You are a helpful assistant."

# The same format as a Jinja template over messages of {role, content}, content being a string or a list of parts
# {type: image | video | text, text}: for `apply_chat_template` on an exported model.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if loop.first and message.role != 'system' -%}"
    "{{- '<|im_start|>system\\n" + SYSTEM + "<|im_end|>\\n' -}}"
    "{%- endif -%}"
    "{{- '<|im_start|>' + message.role + '\\n' -}}"
    "{%- if message.content is string -%}{{- message.content -}}"
    "{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif part.type == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}"
    "{%- else -%}{{- part.text -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


class ChatError(ValueError):
    """A conversation that cannot be written as text or ids; one line."""


class Piece(NamedTuple):
    """A stretch of a conversation's text. spoken: somebody's words, not the format's."""

    text: str
    spoken: bool = False
    learned: bool = False


def placeholder(videos: Sequence[bool]) -> str:
    """What stands in the text for one of a record's media, given which of its spans are videos."""
    pads = ("<|video_pad|>" if video else "<|image_pad|>" for video in videos)
    return "".join(f"<|vision_start|>{pad}<|vision_end|>" for pad in pads)


def render(turns: Sequence[Turn], media: Sequence[Sequence[bool]], *, prompt: bool = False) -> list[Piece]:
    """The pieces of a conversation; joined, their texts are the whole sample.

    turns: a system turn may come first. media: for each of the record's media, which of its spans are videos. prompt:
    leaves out the last answer, if the last turn is one, and ends with the assistant's header.
    """
    if prompt and turns[-1].role == "assistant":
        turns = turns[:-1]
    places, pieces = iter(media), []
    if turns[0].role != "system":
        pieces.append(Piece(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"))
    for turn in turns:
        pieces.append(Piece(f"<|im_start|>{turn.role}\n"))
        if turn.role == "assistant":
            pieces += [Piece(turn.text, True, True), Piece("<|im_end|>", False, True), Piece("\n")]
            continue
        first, *rest = turn.text.split(MEDIA_TOKEN) if turn.role == "user" else [turn.text]
        pieces.append(Piece(first, True))
        for part in rest:
            pieces += [Piece(placeholder(next(places))), Piece(part, True)]
        pieces.append(Piece("<|im_end|>\n"))
    if prompt:
        return [*pieces, Piece("<|im_start|>assistant\n")]
    return pieces[:-1] if turns[-1].role == "assistant" else pieces


def encode(pieces: Iterable[Piece], tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """Ids of rendered pieces, and for each whether it is learned. Raises ChatError where a tokenizer cannot spell a
    control token that somebody wrote."""
    ids: list[int] = []
    learned: list[bool] = []
    for learn, run in itertools.groupby(pieces, lambda piece: piece.learned):
        found = _encode_run(list(run), tokenizer)
        ids += found
        learned += [learn] * len(found)
    return ids, learned


def _encode_run(run: list[Piece], tokenizer: Tokenizer) -> list[int]:
    """The ids of the joined texts, with the control tokens of the format and no others."""
    written = sum(len(tokenizer.control_tokens(piece.text)) for piece in run if not piece.spoken)
    ids = tokenizer.encode("".join(piece.text for piece in run))
    if tokenizer.count_control(ids) == written:
        return ids
    # Somebody wrote what looks like a control token: it is spelled, the text around it is encoded as before.
    ids, text = [], ""
    for piece in run:
        end = 0
        for start, stop in tokenizer.control_tokens(piece.text) if piece.spoken else ():
            ids += tokenizer.encode(text + piece.text[end:start])
            try:
                ids += tokenizer.spell(piece.text[start:stop])
            except TokenizerError as error:
                raise ChatError(f"a text holds {piece.text[start:stop]!r}: {error}") from error
            text, end = "", stop
        text += piece.text[end:]
    ids += tokenizer.encode(text)
    if tokenizer.count_control(ids) != written:
        raise ChatError("a text becomes control tokens when the tokenizer normalises it")
    return ids
