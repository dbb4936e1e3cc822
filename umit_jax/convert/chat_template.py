"""Do two chat templates say the same texts? Compared on a few conversations, rendered in jinja2's sandbox.

A template comes from outside: it may loop and format strings, but reaches no attribute that begins with an underscore,
changes nothing and runs for conversations of a few short turns only.
"""

from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

_PICTURE, _FILM = {"type": "image"}, {"type": "video"}
_QUESTION, _OTHER = {"type": "text", "text": "Is the liver seen?"}, {"type": "text", "text": "肝脏可见吗？ "}
_PROBES: tuple[list[dict[str, Any]], ...] = (
    [{"role": "user", "content": [_PICTURE, _QUESTION]}],
    [
        {"role": "user", "content": [_PICTURE, _FILM, _OTHER]},
        {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
        {"role": "user", "content": [_QUESTION]},
    ],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which plane?"}],
)


def same_texts(first: str, second: str) -> bool:
    """False also where one of them cannot be rendered."""
    try:
        return all(_render(first, probe) == _render(second, probe) for probe in _PROBES)
    except (TemplateError, TypeError, ValueError, OverflowError, KeyError):
        return False


def _render(template: str, messages: list[dict[str, Any]]) -> str:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment.globals["raise_exception"] = refuse
    return environment.from_string(template).render(messages=messages, add_generation_prompt=True)
