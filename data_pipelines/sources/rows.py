"""Rows of a .jsonl file, or of a .json file that is one list, by where their bytes are: files larger than the memory.

A file is scanned once for the start and length of each row, which are kept as numbers, sixteen bytes a row; a row is
read again when its turn comes. So a worker is told where its rows are and holds nothing of the others.
"""

import codecs
import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from data_pipelines.sources.layout import LayoutError
from data_pipelines.sources.make import RowError

Span = tuple[int, int, int, int]  # number of the file, first byte, bytes, number of the row in its file
_BLOCK = 1 << 22


class Rows(Sequence[Span]):
    """The rows of all files, in their order."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Raises LayoutError for a .json file that is no list."""
        self._starts, self._lengths, self._ends = array("Q"), array("Q"), []
        for file in files:
            for start, length in spans(file):
                self._starts.append(start)
                self._lengths.append(length)
            self._ends.append(len(self._starts))

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Span: ...

    @overload
    def __getitem__(self, index: slice) -> list[Span]: ...

    def __getitem__(self, index: int | slice) -> Span | list[Span]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        file = next(i for i, end in enumerate(self._ends) if index < end)
        before = self._ends[file - 1] if file else 0
        return file, self._starts[index], self._lengths[index], index - before


def read_row(file: Path, start: int, length: int) -> dict[str, Any]:
    """One row. Raises RowError for what is no JSON object."""
    with file.open("rb") as opened:
        opened.seek(start)
        return parse_row(opened.read(length))


def parse_row(data: bytes) -> dict[str, Any]:
    """Raises RowError for what is no JSON object."""
    try:
        row = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise RowError("row is no JSON object")
    if b"\\ud" in data.lower():  # escaped halves of characters, which may lack the other half
        try:
            json.dumps(row, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise RowError("text is no Unicode") from None
    return row


def spans(file: Path) -> Iterator[tuple[int, int]]:
    """(first byte, bytes) of each row; blank lines are none. Raises LayoutError."""
    with file.open("rb") as opened:
        head = opened.read(1 << 16)
    start = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    if head[start:].lstrip()[:1] == b"[":
        yield from _list_spans(file, start)
        return
    with file.open("rb") as opened:
        opened.seek(start)
        for line in opened:
            if line.strip():
                yield start, len(line)
            start += len(line)


def _list_spans(file: Path, start: int) -> Iterator[tuple[int, int]]:
    """Items of the list that begins at byte `start`, found with a buffer of a few items."""
    decoder, text, at, ended, block = json.JSONDecoder(), "", 0, False, _BLOCK
    utf8 = codecs.getincrementaldecoder("utf-8")()
    opening = True
    with file.open("rb") as opened:
        opened.seek(start)
        while True:
            gap = len(text) - len(text[at:].lstrip(" \t\r\n" if opening else " \t\r\n,"))
            start, at = start + gap - at, gap  # white space and commas are a byte each
            if opening and text[at : at + 1] == "[":
                start, at, opening = start + 1, at + 1, False
                continue
            if text[at : at + 1] == "]":
                return
            try:
                _, end = decoder.raw_decode(text, at)
            except (ValueError, RecursionError):
                end = len(text)
            if end < len(text):  # a number may go on where the buffer ends
                length = len(text[at:end].encode())
                yield start, length
                start, at, block = start + length, end, _BLOCK
                continue
            if ended:
                raise LayoutError(f"{file}: no JSON from byte {start} on")
            data = opened.read(block)
            ended, block = not data, block * 2
            try:
                text, at = text[at:] + utf8.decode(data, ended), 0
            except UnicodeDecodeError:
                raise LayoutError(f"{file}: not in UTF-8, after byte {start}") from None
