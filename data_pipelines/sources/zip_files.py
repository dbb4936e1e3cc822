"""Files of a large zip archive by name, with an index of sixteen bytes a file instead of an object each.

Only the directory at the archive's end is scanned, once a process; a file is found by a digest of its name without the
folders. Sizes and check sums are the directory's, which are right for archives written to a stream, too. Zip64 archives
are read, encrypted and exotically compressed members are not.
"""

import dataclasses
import hashlib
import os
import struct
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data_pipelines.inputs import note
from data_pipelines.media import MediaError
from data_pipelines.sources.layout import LayoutError

_END, _END64, _LOCATOR64, _ENTRY, _LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
_LARGEST = 1 << 28  # bytes of a member when unpacked
_FULL = 0xFFFFFFFF
SEVERAL = "several images of that name, which differ"


class ZipFiles:
    """The members of an archive. Raises LayoutError for a file that is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        keys, places = array("Q"), array("Q")
        try:
            with path.open("rb") as file:
                start, size, count = _directory(file)
                file.seek(start)
                for name, at in _entries(file.read(size)):
                    count -= 1
                    if not name.endswith(b"/"):
                        keys.append(name_key(name.rsplit(b"/", 1)[-1]))
                        places.append(start + at)
            if count % (1 << 16):  # some writers count no further
                raise ValueError("another number of entries than stated")
        except (struct.error, ValueError):
            expected = "expected a zip archive, whole and in one file with nothing in front"
            raise LayoutError(f"{path}: {expected}; parts are joined by zip -s 0 PART.zip --out WHOLE.zip") from None
        order = np.argsort(np.asarray(keys), kind="stable")
        self._keys, self._places = np.asarray(keys)[order], np.asarray(places)[order]

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, name: str) -> bool:
        return len(self._found(name)) > 0

    def read(self, name: str) -> bytes:
        """The member whose name without folders is `name`. Raises MediaError, also where two differ in their bytes."""
        note(self.path)
        places = self._found(name)
        if not len(places):
            raise MediaError("image file is missing")
        try:
            with self.path.open("rb") as file:
                entries = [_entry(file, int(place)) for place in places]
                same = len({(entry.check, entry.unpacked) for entry in entries}) == 1
                data = _member(file, entries[0], name.encode()) if same else b""
        except (struct.error, ValueError, zlib.error):
            raise MediaError("damaged in the archive") from None
        if not same:
            raise MediaError(SEVERAL)
        return data

    def _found(self, name: str) -> np.ndarray:
        key = np.uint64(name_key(name.encode()))
        return self._places[np.searchsorted(self._keys, key) : np.searchsorted(self._keys, key, "right")]


@dataclasses.dataclass(frozen=True)
class _Entry:
    """What the directory says of a member. place: of its local header. check: CRC-32. packed, unpacked: bytes."""

    flags: int
    method: int
    check: int
    packed: int
    unpacked: int
    place: int


def name_key(name: bytes) -> int:
    """A digest of 64 bits of a file's name."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def _directory(file: BinaryIO) -> tuple[int, int, int]:
    """(first byte, bytes, entries) of the directory."""
    length = file.seek(0, 2)
    file.seek(max(length - (1 << 16) - 22 - 20, 0))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0:
        raise ValueError("no end of directory")
    disk, directory_disk, _, files, size, start = struct.unpack_from("<HHHHII", tail, at + 4)
    if _FULL in (size, start) or tail[at - 20 : at - 16] == _LOCATOR64:
        (place,) = struct.unpack_from("<Q", tail, at - 12)
        file.seek(min(place, length))
        end = file.read(56)
        if end[:4] != _END64:
            raise ValueError("no end of directory")
        disk, directory_disk, _, files, size, start = struct.unpack_from("<IIQQQQ", end, 16)
    if disk or directory_disk:
        raise ValueError("one part of several")
    if start + size > length:
        raise ValueError("no directory")
    return start, size, files


def _entries(data: bytes) -> Iterator[tuple[bytes, int]]:
    """(name, where its entry is in the directory) of each entry; a folder's name ends with a slash."""
    at = 0
    while data[at : at + 4] == _ENTRY:
        names, extras, comments = struct.unpack_from("<HHH", data, at + 28)
        yield data[at + 46 : at + 46 + names], at
        at += 46 + names + extras + comments


def _entry(file: BinaryIO, at: int) -> _Entry:
    file.seek(at)
    head = file.read(46)
    flags, method = struct.unpack_from("<HH", head, 8)
    check, packed, unpacked, names, extras = struct.unpack_from("<IIIHH", head, 16)
    (place,) = struct.unpack_from("<I", head, 42)
    file.seek(names, 1)
    wide = _wide(file.read(extras)) if _FULL in (packed, unpacked, place) else iter(())
    unpacked, packed, place = (next(wide) if n == _FULL else n for n in (unpacked, packed, place))
    return _Entry(flags, method, check, packed, unpacked, place)


def _wide(extra: bytes) -> Iterator[int]:
    """The 64-bit numbers of the Zip64 field, which stand for those that are full, in this order: bytes when unpacked,
    bytes, place."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            yield from struct.unpack_from(f"<{length // 8}Q", extra, at + 4)
        at += 4 + length
    raise ValueError("no Zip64 field, or one that is too short")


def _member(file: BinaryIO, entry: _Entry, wanted: bytes) -> bytes:
    """The directory may lie: nothing is read beyond _LARGEST or the file, nor unpacked beyond the stated size."""
    length = os.fstat(file.fileno()).st_size
    if entry.place + entry.packed > length or max(entry.packed, entry.unpacked) > _LARGEST:
        raise ValueError("cut, or too large")
    file.seek(entry.place)
    head = file.read(30)
    if head[:4] != _LOCAL:
        raise ValueError("no local header")
    names, extras = struct.unpack_from("<HH", head, 26)
    name = file.read(names)
    file.seek(extras, 1)
    if name.rsplit(b"/", 1)[-1] != wanted or entry.flags & 1 or entry.method not in (0, 8):
        raise ValueError("another file, or one that cannot be read")
    data = file.read(entry.packed)
    if entry.method == 8:
        data = zlib.decompressobj(-15).decompress(data, entry.unpacked + 1)
    if len(data) != entry.unpacked or zlib.crc32(data) != entry.check:
        raise ValueError("damaged")
    return data
