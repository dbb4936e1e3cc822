"""The page's one file: templates, style, script and data put together so that nothing in the data can become markup.

Text goes through Jinja's escaping, data into JSON blocks without <, > and &, and the page's own policy (a meta tag)
allows exactly its one style and one script, by their hashes, pictures beside it, and nothing from a network. Trusted
types are required and none exists, so that the script cannot make markup of a text even by mistake.
"""

import base64
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

_ASSETS = Path(__file__).parent / "assets"
_SCRIPTS = ("words.js", "list.js", "picture.js", "detail.js", "page.js")


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


@functools.cache
def words() -> dict[str, list[str]]:
    """{key: [English, Chinese]} of every word of the page."""
    return json.loads(_asset("words.json"))


def json_block(value: Any) -> Markup:
    """JSON that ends no element, opens none and breaks no line of JavaScript, wherever it stands in a page."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; img-src 'self' file: data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _word(key: str) -> Markup:
    """A word that the page can say in the other language."""
    return Markup('<span data-t="{}">{}</span>').format(key, words()[key][0])


def _task_word(task: str) -> Markup:
    return _word(f"t_{task}") if f"t_{task}" in words() else escape(task)


def _group_name(group: tuple[str, str, str, str]) -> Markup:
    task, *rest = group
    return Markup(" · ").join([_task_word(task), *(escape(part) for part in rest if part)])


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(t=_word, task_word=_task_word, group_name=_group_name, words=words())
    return environment


def render(context: dict[str, Any], columns: dict[str, Any], chunks: list[list[dict[str, Any]]]) -> bytes:
    """The page as bytes. Half a character of a text, which no UTF-8 can hold, is written as its escape."""
    style = "\n" + _asset("page.css")
    script = '\n"use strict";\n(() => {\n' + "\n".join(_asset(name) for name in _SCRIPTS) + "})();\n"
    text = (
        _environment()
        .get_template("page.html")
        .render(
            **context,
            policy=policy(style, script),
            style=Markup(style),
            script=Markup(script),
            words_json=json_block(words()),
            columns_json=json_block(columns),
            chunks_json=[json_block(chunk) for chunk in chunks],
        )
    )
    return text.lstrip().encode("utf-8", "backslashreplace")
