"""Safetensors files: headers read and checked without touching the data, files written one tensor at a time.

| bytes      | what                                                                                  |
| 8          | length of the header, little endian                                                   |
| header     | JSON: name -> {dtype, shape, data_offsets [begin, end)}, and "__metadata__" (strings) |
| the rest   | the tensors, row-major, without gaps                                                  |

The library reads and writes whole files; here neither a file nor a stacked parameter has to be in memory.
"""

import contextlib
import json
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from umit_jax.newfile import NewFile

DTYPES = {"BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16), "F32": np.dtype(np.float32)}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LARGEST_HEADER = 100_000_000  # the format's own limit
ALIGNED = 4096  # where the tensors begin: a multiple of the pages they are mapped by, and of a disk's blocks


class CheckpointError(ValueError):
    """A checkpoint that does not fit the model; the message names the file or tensor."""


class Stored(NamedTuple):
    """Where a tensor lies: `offset` is in bytes from the beginning of the file."""

    name: str
    file: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def map(self) -> np.ndarray:
        """The tensor as it lies in the file; pages are read when they are looked at."""
        if not self.nbytes:
            return np.empty(self.shape, self.dtype)
        return np.memmap(self.file, self.dtype, "r", self.offset, self.shape)


class Spec(NamedTuple):
    """A tensor to be written."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(path: Path) -> list[Stored]:
    """Every tensor of a file, in the order of their bytes. Raises CheckpointError where header and file disagree."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise CheckpointError(f"{path}: a pickle under another name: refused, because reading one can run code")
        length = int.from_bytes(start, "little")
        if size < 8 or length > min(size - 8, _LARGEST_HEADER):
            raise CheckpointError(f"{path}: not a safetensors file: claims a header of {length} bytes of {size}")
        entries = _parse(path, file.read(length))
    begin, found = 8 + length, []
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        stored, end = _stored(path, name, entry, begin, 8 + length)
        if end > size:
            raise CheckpointError(f"{path}: truncated: tensor {name} ends at byte {end}, the file at {size}")
        found.append(stored)
        begin = end
    if begin != size:
        raise CheckpointError(f"{path}: {size - begin} bytes after the last tensor belong to none")
    return found


def _parse(path: Path, header: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys: dict[str, Any] = {}
        for key, value in pairs:
            if key in keys:
                raise CheckpointError(f"{path}: tensor {key} is in the header twice")
            keys[key] = value
        return keys

    try:
        entries = json.loads(header.decode("utf-8"), object_pairs_hook=unique)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a safetensors file: its header is not JSON") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{path}: not a safetensors file: its header is no table of tensors")
    entries.pop("__metadata__", None)
    for name, entry in entries.items():
        if not _well_formed(entry):
            raise CheckpointError(f"{path}: tensor {name}: its header entry lacks a dtype, shape or data_offsets")
    return entries


def _well_formed(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [None]
    return len(numbers) == len(shape or []) + 2 and all(type(n) is int and n >= 0 for n in numbers)


def _stored(path: Path, name: str, entry: dict[str, Any], begin: int, data: int) -> tuple[Stored, int]:
    """The tensor and the byte after it; it must begin where the one before ended."""
    if entry["dtype"] not in DTYPES:
        raise CheckpointError(
            f"{path}: tensor {name}: dtype {entry['dtype']} is not supported, expected {', '.join(DTYPES)}"
        )
    stored = Stored(name, path, DTYPES[entry["dtype"]], tuple(entry["shape"]), begin)
    first, last = (data + offset for offset in entry["data_offsets"])
    if first != begin:
        raise CheckpointError(f"{path}: tensor {name}: begins at byte {first}, expected {begin}: overlap or gap")
    if last - first != stored.nbytes:
        raise CheckpointError(
            f"{path}: tensor {name}: {last - first} bytes, but {entry['dtype']} {entry['shape']} takes {stored.nbytes}"
        )
    return stored, last


Put = Callable[[str, np.ndarray, int], None]


@contextlib.contextmanager
def new_file(path: Path, specs: Sequence[Spec]) -> Iterator[Put]:
    """A file whose tensors come in any order, also in parts and from several threads: put(name, values, at) writes
    values from byte `at` of the tensor on."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for spec in specs:
        offsets = [begin, begin + spec.nbytes]
        entries[spec.name] = {"dtype": NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": offsets}
        begin = offsets[1]
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-(8 + len(header)) % ALIGNED)
    places = {spec.name: (8 + len(header) + entries[spec.name]["data_offsets"][0], spec) for spec in specs}
    left = begin

    def put(name: str, values: np.ndarray, at: int = 0) -> None:
        nonlocal left
        offset, spec = places[name]
        assert values.dtype == spec.dtype, (spec, values.dtype)
        assert at + values.nbytes <= spec.nbytes, (spec, values.shape, at)
        file.write(offset + at, np.ascontiguousarray(values))
        with lock:
            left -= values.nbytes

    lock = threading.Lock()
    with NewFile(path) as file:
        file.write(0, len(header).to_bytes(8, "little") + header)
        yield put
    assert left == 0, f"{path}: {left} bytes were not written"


def write_file(path: Path, specs: Sequence[Spec], values: Iterable[np.ndarray]) -> None:
    """A file whose tensors come one after the other."""
    with new_file(path, specs) as put:
        for spec, value in zip(specs, values, strict=True):
            put(spec.name, value, 0)
