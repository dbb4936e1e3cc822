"""Pickle files of plain data, read without the machinery that could run code.

A pickle is a program. This reads its opcodes (pickletools names them) and carries out only those that make lists,
tuples, dicts, sets, texts, numbers and None; one that would look up a class or call anything ends the reading. So there
is nothing to look up and nothing to call, whatever the file holds. Texts of Python 2 are taken for UTF-8, then Latin-1.
"""

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipelines.sources.layout import LayoutError

_MARK = object()
_IGNORED = ("PROTO", "FRAME")
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_OLD_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_REMEMBER = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_RECALL = ("GET", "BINGET", "LONG_BINGET")


def load_plain(path: Path) -> Any:
    """What the file holds. Raises LayoutError for anything but plain data, and for a damaged file."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        with path.open("rb") as file:
            for opcode, value, _ in pickletools.genops(file):
                if opcode.name == "STOP":
                    (result,) = stack
                    return result
                if not _step(opcode.name, value, stack, memo):
                    what = f"{opcode.name} {value}" if isinstance(value, str) else opcode.name
                    raise LayoutError(f"{path}: refused: expected only lists, dicts, texts and numbers, found {what}")
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, LayoutError):
            raise
    raise LayoutError(f"{path}: damaged, or no pickle")


def _step(name: str, value: Any, stack: list[Any], memo: dict[int, Any]) -> bool:
    """Carries out one opcode; False for one that is not among the plain ones."""
    if name in _NUMBERS or name in _TEXTS:
        stack.append(value)
    elif name in _OLD_TEXTS:
        stack.append(_old_text(value))
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in _EMPTY:
        stack.append(_EMPTY[name]())
    elif name in _REMEMBER:
        memo[len(memo) if value is None else value] = stack[-1]
    elif name in _RECALL:
        stack.append(memo[value])
    elif name in _TUPLES:
        items = tuple(stack[-_TUPLES[name] :])
        del stack[-_TUPLES[name] :]
        stack.append(items)
    elif name in ("APPEND", "SETITEM"):
        items = [stack.pop() for _ in range(1 if name == "APPEND" else 2)][::-1]
        _add(stack[-1], items)
    elif name in ("APPENDS", "SETITEMS", "ADDITEMS"):
        items = _from_mark(stack)
        _add(stack[-1], items)
    elif name in ("LIST", "TUPLE", "DICT", "FROZENSET"):
        items = _from_mark(stack)
        pairs = dict(zip(items[::2], items[1::2], strict=True)) if name == "DICT" else {}
        made = {"LIST": list, "TUPLE": tuple, "FROZENSET": frozenset, "DICT": lambda _: pairs}[name](items)
        stack.append(made)
    elif name == "POP":
        stack.pop()
    elif name == "POP_MARK":
        _from_mark(stack)
    elif name not in _IGNORED:
        return False
    return True


def _add(container: Any, items: list[Any]) -> None:
    if isinstance(container, dict):
        container.update(zip(items[::2], items[1::2], strict=True))
    elif isinstance(container, set):
        container.update(items)
    else:
        container.extend(items)


def _from_mark(stack: list[Any]) -> list[Any]:
    """Takes what stands above the last mark, and the mark."""
    at = len(stack) - 1
    while stack[at] is not _MARK:
        at -= 1
        if at < 0:
            raise ValueError("no mark")
    items = stack[at + 1 :]
    del stack[at:]
    return items


def _old_text(value: str) -> str:
    """pickletools gives the bytes of a Python 2 text as Latin-1."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value
