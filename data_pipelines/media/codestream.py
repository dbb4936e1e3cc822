"""What a compressed frame states of itself, so that it can be held against the DICOM header before decoding.

A header of 10x10 pixels over a codestream of 60000x60000 would otherwise cost gigabytes before anybody notices.
JPEG and JPEG-LS: ITU-T T.81 and T.87, a start-of-frame segment. JPEG 2000: ITU-T T.800, the SIZ segment.
"""

import struct
from typing import NamedTuple

_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}  # F7: JPEG-LS
_BARE = {0x01, 0xD8, *range(0xD0, 0xD8)}  # markers without a length


LOSSLESS_JPEG = 0xC3
_TABLES, _SCAN = 0xC4, 0xDA


class Stated(NamedTuple):
    """What a codestream states: rows, columns, components, and the marker of its frame header (0 for JPEG 2000)."""

    rows: int
    columns: int
    components: int
    marker: int


def stated(frame: bytes) -> Stated | None:
    """What a JPEG, JPEG-LS or JPEG 2000 codestream states of itself, or None where it states nothing."""
    start = frame.find(b"\xff\x4f\xff\x51", 0, 512)  # a JP2 box may come before it
    try:
        if start >= 0:
            width, height, left, top = struct.unpack_from(">4I", frame, start + 8)
            (components,) = struct.unpack_from(">H", frame, start + 40)
            return Stated(height - top, width - left, components, 0)
        return _jpeg(frame) if frame[:2] == b"\xff\xd8" else None
    except (struct.error, IndexError):  # the segment is cut off
        return None


def _jpeg(frame: bytes) -> Stated | None:
    """Follows the segments up to the scan; None where they do not lead there or a Huffman table is none."""
    found: Stated | None = None
    tables, at = set(), 2
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in _BARE or marker == 0xFF:  # the latter is a fill byte
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", frame, at + 2)
        segment = frame[at + 4 : at + 2 + length]
        if marker in _FRAMES:
            found = Stated(*struct.unpack_from(">HHB", segment, 1), marker)
        elif marker == _TABLES:
            defined = _huffman_tables(segment)
            if not defined:
                return None
            tables |= defined
        elif marker == _SCAN:
            if found is not None and found.marker == LOSSLESS_JPEG:
                used = {selector >> 4 for selector in segment[2 : 1 + 2 * segment[0] : 2]}
                return found if segment[0] == found.components and used <= tables else None
            return found
        at += 2 + length
    return None


def _huffman_tables(segment: bytes) -> set[int]:
    """Numbers of the tables that a segment defines; none where a table has more codes than its lengths allow."""
    tables, at = set(), 0
    while at + 17 <= len(segment):
        counts = segment[at + 1 : at + 17]
        if sum(n << (16 - i) for i, n in enumerate(counts, 1)) > 1 << 16:
            return set()
        tables.add(segment[at] & 15)
        at += 17 + sum(counts)
    return tables if at == len(segment) else set()
