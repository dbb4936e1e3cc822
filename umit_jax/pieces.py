"""Large arrays piece by piece: a few threads, each with memory of its own that it uses again.

Memory that is used for the first time costs more than copying into it, because the system clears every page. So what
converts gigabytes does it in pieces of some megabytes that keep their place: read, turned, summed and written by the
same thread, while another one does the same with the next piece.
"""

import functools
import math
import mmap
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np

THREADS = min(4, os.cpu_count() or 1)
_BYTES = 1 << 25  # of a piece, where rows are not larger
_own = threading.local()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, "pieces")


def for_each(work: Callable[[Any], Any], pieces: Iterable[Any]) -> None:
    """work(piece) for each, in no particular order. Raises what the first of them raises, when all have ended."""
    tasks = [_pool().submit(work, piece) for piece in pieces]
    try:
        for task in tasks:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        wait(tasks)


def rows_at_once(shape: tuple[int, ...], dtype: Any) -> int:
    """How many rows of the first axis make a piece."""
    return min(max(1, _BYTES // max(1, math.prod(shape[1:]) * np.dtype(dtype).itemsize)), shape[0])


def rows_of(count: int, step: int) -> list[slice]:
    """0..count in slices of `step`."""
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def scratch(use: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array of this thread with anything in it, from the beginning of a page on. The next one for the same use lies
    in the same memory."""
    held = vars(_own).setdefault("held", {})
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    if use not in held or len(held[use]) < nbytes:
        held.pop(use, None)  # gone before the larger one comes
        room = np.empty(nbytes + mmap.PAGESIZE, np.uint8)
        held[use] = room[-room.ctypes.data % mmap.PAGESIZE :]
    return held[use][:nbytes].view(dtype).reshape(shape)
