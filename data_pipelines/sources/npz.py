"""Arrays inside .npz files, row by row: an archive of many gigabytes is read in constant memory, and never unpickled.

A member that is stored as it is gets read where it lies in the archive. A compressed one has no random access, so it is
unpacked once into the cache, beside a lock, and read there; what is in the cache may be deleted between runs.
"""

import dataclasses
import fcntl
import functools
import hashlib
import math
import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from data_pipelines.sources.layout import LayoutError

_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member: lengths of its name and extra field
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)  # RuntimeError: encrypted, or exotically packed
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def shape_of(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """(shape, dtype) of a member from its header. Raises LayoutError."""
    with _archive(path) as archive:
        shape, dtype, _ = _header(archive, path, name)
    return shape, dtype


def read(path: Path, name: str) -> np.ndarray:
    """A small member, whole. Raises LayoutError."""
    shape_of(path, name)
    with _archive(path) as archive, archive.open(f"{name}.npy") as file:
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, OSError, *_UNREADABLE) as error:
            raise _damaged(path, name) from error


@dataclasses.dataclass(frozen=True)
class Rows:
    """Where an array lies in a file. It is read and not mapped, so that memory does not grow with what was seen."""

    path: Path
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, first: int, stop: int) -> np.ndarray:
        """Rows [first, stop). Raises LayoutError where the file is shorter."""
        values = math.prod(self.shape[1:])
        offset, count = self.start + first * values * self.dtype.itemsize, (stop - first) * values
        found = np.fromfile(self.path, self.dtype, count, offset=offset)
        if len(found) != count:
            raise LayoutError(f"{self.path}: truncated")
        return found.reshape(stop - first, *self.shape[1:])


def rows(path: Path, name: str, cache: Path) -> Rows:
    """A member as rows on disk, found once per process. Raises LayoutError, OSError."""
    return _rows(path, name, cache, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _rows(path: Path, name: str, cache: Path, changed_ns: int) -> Rows:
    with _archive(path) as archive:
        shape, dtype, start = _header(archive, path, name)
        info = archive.getinfo(f"{name}.npy")
        if info.compress_type == zipfile.ZIP_STORED:
            with open(path, "rb") as file:
                file.seek(info.header_offset)
                start += info.header_offset + 30 + sum(_LOCAL_HEADER.unpack(file.read(30)))
            return Rows(path, start, shape, dtype)
        key = hashlib.sha256(f"{path.resolve()}\0{path.stat().st_size}\0{changed_ns}".encode()).hexdigest()
        unpacked = cache / "npz" / key / f"{name}.npy"
        _unpack(archive, path, name, unpacked)
    return Rows(unpacked, start, shape, dtype)


def _unpack(archive: zipfile.ZipFile, path: Path, name: str, unpacked: Path) -> None:
    unpacked.parent.mkdir(parents=True, exist_ok=True)
    with open(unpacked.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if unpacked.exists():
            return
        aside = unpacked.with_suffix(".part")
        try:
            with archive.open(f"{name}.npy") as packed, open(aside, "wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
            aside.rename(unpacked)
        except _UNREADABLE as error:
            raise _damaged(path, name) from error
        finally:
            aside.unlink(missing_ok=True)


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise LayoutError(f"{path}: not a whole .npz file") from None


def _header(archive: zipfile.ZipFile, path: Path, name: str) -> tuple[tuple[int, ...], np.dtype, int]:
    """(shape, dtype, bytes before the first value)."""
    try:
        with archive.open(f"{name}.npy") as file:
            return *_read_header(file, path, name), file.tell()
    except KeyError:
        found = ", ".join(sorted(n.removesuffix(".npy") for n in archive.namelist()))
        raise LayoutError(f"{path}: no array {name}; found {found}") from None
    except _UNREADABLE as error:
        raise _damaged(path, name) from error


def _read_header(file: IO[bytes] | Any, path: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    try:
        shape, fortran, dtype = _READERS[np.lib.format.read_magic(file)](file)
    except (ValueError, KeyError) as error:
        raise _damaged(path, name) from error
    if dtype.hasobject or fortran:
        what = "pickled objects" if dtype.hasobject else "column order"
        raise LayoutError(f"{path}: array {name}: {what}, which is not read")
    return shape, dtype


def _damaged(path: Path, name: str) -> LayoutError:
    return LayoutError(f"{path}: array {name}: damaged or truncated, or encrypted")
