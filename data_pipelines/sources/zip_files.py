"""Files of a large zip archive by name, with an index of thirty bytes a file instead of an object each.

Only the directory at the archive's end is scanned, once a process; a file is found by a digest of its name without the
folders, and read by its place. Zip64 archives are read, encrypted and exotically compressed members are not.
"""

import hashlib
import struct
import zlib
from array import array
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data_pipelines.inputs import note
from data_pipelines.media import MediaError
from data_pipelines.sources.layout import LayoutError

_END, _END64, _LOCATOR64, _ENTRY, _LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
_LARGEST = 1 << 28  # bytes of a member when unpacked
_FULL = 0xFFFFFFFF


class ZipFiles:
    """The members of an archive. Raises LayoutError for a file that is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        keys, places = array("Q"), array("Q")
        try:
            with path.open("rb") as file:
                start, size = _directory(file)
                file.seek(start)
                for name, offset in _entries(file.read(size)):
                    keys.append(_key(name.rsplit(b"/", 1)[-1]))
                    places.append(offset)
        except (struct.error, ValueError):
            raise LayoutError(f"{path}: no zip archive, or one whose end is missing") from None
        order = np.argsort(np.asarray(keys), kind="stable")
        self._keys, self._places = np.asarray(keys)[order], np.asarray(places)[order]

    def __len__(self) -> int:
        return len(self._keys)

    def read(self, name: str) -> bytes:
        """The member whose name without folders is `name`. Raises MediaError."""
        note(self.path)
        wanted = name.encode()
        at = int(np.searchsorted(self._keys, np.uint64(_key(wanted))))
        if at == len(self) or int(self._keys[at]) != _key(wanted):
            raise MediaError("image file is missing")
        try:
            with self.path.open("rb") as file:
                return _member(file, int(self._places[at]), wanted)
        except (struct.error, ValueError, zlib.error):
            raise MediaError("damaged in the archive") from None


def _key(name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def _directory(file: BinaryIO) -> tuple[int, int]:
    """(first byte, bytes) of the directory."""
    length = file.seek(0, 2)
    file.seek(max(length - (1 << 16) - 22 - 20, 0))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0:
        raise ValueError("no end of directory")
    size, start = struct.unpack_from("<II", tail, at + 12)
    if _FULL in (size, start) or tail[at - 20 : at - 16] == _LOCATOR64:
        (place,) = struct.unpack_from("<Q", tail, at - 12)
        file.seek(place)
        end = file.read(56)
        if end[:4] != _END64:
            raise ValueError("no end of directory")
        size, start = struct.unpack_from("<QQ", end, 40)
    return start, size


def _entries(data: bytes):
    """(name, place of its local header) of each entry."""
    at = 0
    while data[at : at + 4] == _ENTRY:
        packed, unpacked, names, extras, comments = struct.unpack_from("<IIHHH", data, at + 20)
        (offset,) = struct.unpack_from("<I", data, at + 42)
        name = data[at + 46 : at + 46 + names]
        if offset == _FULL:
            skip = 8 * ((packed == _FULL) + (unpacked == _FULL))
            offset = _extra64(data[at + 46 + names : at + 46 + names + extras], skip)
        if not name.endswith(b"/"):
            yield name, offset
        at += 46 + names + extras + comments


def _extra64(extra: bytes, skip: int) -> int:
    """The 64-bit number after `skip` bytes of the Zip64 field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            return struct.unpack_from("<Q", extra, at + 4 + skip)[0]
        at += 4 + length
    raise ValueError("no Zip64 field")


def _member(file: BinaryIO, place: int, wanted: bytes) -> bytes:
    file.seek(place)
    head = file.read(30)
    if head[:4] != _LOCAL:
        raise ValueError("no local header")
    flags, method = struct.unpack_from("<HH", head, 6)
    check, packed, unpacked, names, extras = struct.unpack_from("<IIIHH", head, 14)
    name = file.read(names)
    file.seek(extras, 1)
    known = packed != _FULL and not flags & 8  # otherwise the sizes stand elsewhere: the stream says where it ends
    if name.rsplit(b"/", 1)[-1] != wanted or flags & 1 or method not in (0, 8) or (method == 0 and not known):
        raise ValueError("another file, or one that cannot be read")
    data = file.read(packed if known else _LARGEST)
    if method == 8:
        data = zlib.decompressobj(-15).decompress(data, _LARGEST)
    if known and (len(data) != unpacked or zlib.crc32(data) != check):
        raise ValueError("damaged")
    return data
