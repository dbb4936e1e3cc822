"""A model's own chat template (Jinja, from the tokenizer's directory) -> the pieces that `chat.render` makes.

A conversation is rendered twice in jinja2's sandbox: with its texts, and with marks in their place, random ones that no
text can know. Where the marks come out is where the template put each text: so answers and the template's own words
are told apart by place, and nothing that somebody writes can pass for a header or for the end of an answer.
A template is refused, in one line, when it changes, repeats or leaves out a text, when no end token follows an answer,
and when a conversation does not begin with the prompt that its last answer would be generated from: what is learned
would then not be what is asked for.
"""

import functools
import itertools
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from data_pipelines import chat
from data_pipelines.chat import ChatError, Piece
from data_pipelines.record import MEDIA_TOKEN, Turn
from data_pipelines.tokenizer import EOS_TOKENS, Tokenizer

_LONGEST_REPEAT = 10_000  # characters or items that a template may make by multiplication
_MARK = str(secrets.randbits(128))  # digits alone: no filter for letters or spaces changes them
_MARKS = re.compile(rf"{_MARK}-(\d+)-")
_Template = Callable[[Sequence[Mapping[str, Any]], bool], str]  # messages, with the header of an answer at the end
_END = re.compile("|".join(map(re.escape, EOS_TOKENS)))


def render(
    tokenizer: Tokenizer, turns: Sequence[Turn], media: Sequence[Sequence[bool]], *, prompt: bool = False
) -> list[Piece]:
    """`chat.render` in the format of the tokenizer's own template, if it has one. Raises ChatError."""
    source = tokenizer.chat_template
    if source is None or source == chat.CHAT_TEMPLATE:
        return chat.render(turns, media, prompt=prompt)
    template = functools.partial(_run, _compile(source), tokenizer.template_variables)
    if prompt and turns[-1].role == "assistant":
        turns = turns[:-1]
    messages, texts, answers = _messages(turns, media)
    pieces = _learned(_pieces(template, messages, texts, prompt), answers)
    if prompt or turns[-1].role != "assistant":
        return pieces
    *before, _, _, _ = pieces  # the last answer, its end token, what follows it
    if template(messages[:-1], True) != "".join(piece.text for piece in before):
        raise ChatError("chat template: a conversation does not begin with the prompt for its last answer")
    return pieces[:-1]


def check(tokenizer: Tokenizer) -> None:
    """Raises ChatError when the tokenizer's template cannot write a question about an image and its answer."""
    render(tokenizer, [Turn("user", f"{MEDIA_TOKEN}Is the liver seen?"), Turn("assistant", "yes")], [[False]])


def _messages(
    turns: Sequence[Turn], media: Sequence[Sequence[bool]]
) -> tuple[list[dict[str, Any]], list[str], list[int]]:
    """(messages as apply_chat_template takes them, the texts in them in order, which of those are answers)."""
    places, messages, texts, answers = iter(media), [], [], []
    for turn in turns:
        if turn.role != "user" or MEDIA_TOKEN not in turn.text:
            if turn.role == "assistant":
                answers.append(len(texts))
            texts.append(turn.text)
            messages.append({"role": turn.role, "content": turn.text})
            continue
        content: list[dict[str, str]] = []
        for i, text in enumerate(turn.text.split(MEDIA_TOKEN)):
            if i:
                content += [{"type": "video" if video else "image"} for video in next(places)]
            if text:
                texts.append(text)
                content.append({"type": "text", "text": text})
        messages.append({"role": turn.role, "content": content})
    return messages, texts, answers


def _marked(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages with a mark in place of each text."""
    count, out = itertools.count(), []
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            content = f"{_MARK}-{next(count)}-"
        else:
            content = [part | {"text": f"{_MARK}-{next(count)}-"} if "text" in part else part for part in content]
        out.append({**message, "content": content})
    return out


def _pieces(template: _Template, messages: list[dict[str, Any]], texts: list[str], prompt: bool) -> list[str]:
    """Format and texts in turn, the format first and last."""
    parts = _MARKS.split(template(_marked(messages), prompt))
    if [int(i) for i in parts[1::2]] != list(range(len(texts))):
        raise ChatError("chat template: leaves out, repeats or reorders what is said")
    whole = template(messages, prompt)
    for said in (texts, [text.strip() for text in texts]):
        pieces = [*itertools.chain(*zip(parts[::2], said, strict=False)), parts[-1]]
        if "".join(pieces) == whole:
            return pieces
    raise ChatError("chat template: changes what is said, or writes according to it")


def _learned(pieces: list[str], answers: list[int]) -> list[Piece]:
    """The texts as pieces, of which answers and their end tokens are learned."""
    out = [Piece(pieces[0])]
    for number, (said, after) in enumerate(zip(pieces[1::2], pieces[2::2], strict=True)):
        if number not in answers:
            out += [Piece(said, True), Piece(after)]
            continue
        end = _END.match(after)
        if end is None:
            raise ChatError(f"chat template: no {' or '.join(EOS_TOKENS)} follows an answer")
        out += [Piece(said, True, True), Piece(end[0], False, True), Piece(after[end.end() :])]
    return out


def _run(
    template: jinja2.Template, variables: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], prompt: bool
) -> str:
    try:
        return template.render(**variables, messages=messages, tools=None, documents=None, add_generation_prompt=prompt)
    except ChatError:
        raise
    except Exception as error:  # whatever a stranger's program runs into
        raise ChatError(f"chat template: {_line(error)}") from error


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@functools.lru_cache(8)
def _compile(source: str) -> jinja2.Template:
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation], cache_size=0
    )
    environment.globals.update(raise_exception=_refuse, strftime_now=_no_date, namespace=_Namespace)
    for name in ("dict", "lipsum"):  # a type with class methods and a function of jinja2's own: no template needs them
        environment.globals.pop(name)
    environment.filters["tojson"] = functools.partial(json.dumps, ensure_ascii=False)
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise ChatError(f"chat template: {_line(error)}") from error


class _Sandbox(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, in which a short template cannot fill the memory either."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sizes = [len(side) * other for side, other in ((left, right), (right, left)) if hasattr(side, "__len__")]
        if operator == "**" or any(size > _LONGEST_REPEAT for size in sizes):
            raise SecurityError(f"a {'power' if operator == '**' else 'repetition of that length'} is not allowed")
        return super().call_binop(context, operator, left, right)


class _Namespace(Namespace):
    """Without names that begin with an underscore, which the sandbox relies on."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        Namespace.__init__(*args, **kwargs)
        for name in dict(*args[1:], **kwargs):
            _check_name(name)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"a namespace may not hold {name!r}")


class _Generation(Extension):
    """{% generation %}...{% endgeneration %}, which marks answers for other programs: what is inside is rendered."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> NoReturn:
    raise ChatError(f"chat template: {message}")


def _no_date(_: str = "") -> NoReturn:
    raise ChatError("chat template: asks for today's date: the same sample would be another one tomorrow")
