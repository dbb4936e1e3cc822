r"""Qwen2-VL's chat format: turns -> text with special tokens -> ids and which of them are learned.

    <|im_start|>system\nYou are a helpful assistant.<|im_end|>\n
    <|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>question<|im_end|>\n
    <|im_start|>assistant\nanswer<|im_end|>\n

Learned are the answers and their <|im_end|>. An answer is encoded apart from what precedes it, so the ids of a prompt
are the first ids of the training sample; the newline after the last <|im_end|> teaches nothing and is left out.
Here each image, slice or video has one pad token; `example.py` repeats it for every vision token.
"""

from collections.abc import Sequence

from data_pipelines.record import MEDIA_TOKEN, Turn
from data_pipelines.tokenizer import Tokenizer

SYSTEM = "You are a helpful assistant."
_RESERVED = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>")
RESERVED = (*_RESERVED, "<|image_pad|>", "<|video_pad|>")  # what a turn's own text may not hold

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
    """A conversation that cannot be rendered: a turn's text holds a token that only the format may write."""


def placeholder(videos: Sequence[bool]) -> str:
    """What stands in the text for one of a record's media, given which of its spans are videos."""
    pads = ("<|video_pad|>" if video else "<|image_pad|>" for video in videos)
    return "".join(f"<|vision_start|>{pad}<|vision_end|>" for pad in pads)


def render(turns: Sequence[Turn], placeholders: Sequence[str], *, prompt: bool = False) -> list[tuple[str, bool]]:
    """[(text, learned)] of a conversation; joined, the texts are the whole sample.

    placeholders: one for each of the record's media. prompt: leaves out the last answer, if the last turn is one, and
    ends with the assistant's header.
    """
    if prompt and turns[-1].role == "assistant":
        turns = turns[:-1]
    media, pieces = iter(placeholders), []
    text = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
    for i, turn in enumerate(turns):
        if found := [token for token in RESERVED if token in turn.text]:
            raise ChatError(f"turn {i}: its text holds {found[0]}")
        text += f"<|im_start|>{turn.role}\n"
        if turn.role == "assistant":
            pieces += [(text, False), (f"{turn.text}<|im_end|>", True)]
            text = "\n"
        else:
            first, *rest = turn.text.split(MEDIA_TOKEN)
            text += first + "".join(next(media) + part for part in rest) + "<|im_end|>\n"
    if prompt:
        pieces.append((f"{text}<|im_start|>assistant\n", False))
    return pieces


def encode(pieces: Sequence[tuple[str, bool]], tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """Ids of rendered pieces, and for each whether it is learned."""
    ids: list[int] = []
    learned: list[bool] = []
    for text, learn in pieces:
        piece = tokenizer.encode(text)
        ids += piece
        learned += [learn] * len(piece)
    return ids, learned
