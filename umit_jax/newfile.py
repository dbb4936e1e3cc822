"""A file written in parts, in any order and from several threads, past the page cache where that can be done.

What is written once and not read soon needs no memory there: pages have to be found, cleared and written back, and
those of other files go for them. Past it a write ends when the disk has the bytes. Only whole blocks can go that way,
from memory that begins at a block: what a part has less than a block at its ends goes through the cache, and so does
everything where the file system has no other way.
"""

import errno
import os
from pathlib import Path
from typing import Self

import numpy as np

from umit_jax.pieces import scratch

_BLOCK = 1 << 12  # a multiple of the blocks of disks in use
_DIRECT = 1 << 20  # bytes at once past the cache
_CACHED = 1 << 16  # and through it: more take the large pages of a page cache, which are seldom ready


class NewFile:
    """Creates the file; `with` closes it. Raises FileExistsError where there is one, OSError naming it (disk full)."""

    def __init__(self, path: Path):
        self._path = path
        self._cached = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            self._direct = os.open(path, os.O_WRONLY | os.O_DIRECT)
        except (OSError, AttributeError):  # a file system, or an operating system, without
            self._direct = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._cached, self._direct):
            if file is not None:
                os.close(file)

    def write(self, offset: int, values: np.ndarray | bytes) -> None:
        """The bytes of an array, which lie in a row, from a place of the file on."""
        data = memoryview(values) if isinstance(values, bytes) else values.reshape(-1).view(np.uint8).data
        first = last = len(data)
        if self._direct is not None:
            first = min(-offset % _BLOCK, len(data))
            last -= (len(data) - first) % _BLOCK
        try:
            self._through(offset, data[:first])
            for start in range(first, last, _DIRECT):
                self._past(offset + start, data[start : min(start + _DIRECT, last)])
            self._through(offset + last, data[last:])
        except OSError as error:
            error.filename = str(self._path)
            raise

    def _through(self, offset: int, data: memoryview) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(self._cached, data[done : done + _CACHED], offset + done)

    def _past(self, offset: int, data: memoryview) -> None:
        blocks = np.frombuffer(data, np.uint8)
        if blocks.ctypes.data % _BLOCK:
            blocks = scratch("blocks", blocks.shape, np.uint8)
            blocks[...] = data
        assert self._direct is not None
        try:
            done = os.pwrite(self._direct, blocks.data, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:  # its blocks are larger
                raise
            done = 0
        self._through(offset + done, data[done:])
