"""The size that a compressed frame states of itself, so that it can be held against the DICOM header before decoding.

A header of 10x10 pixels over a codestream of 60000x60000 would otherwise cost gigabytes before anybody notices.
JPEG and JPEG-LS: ITU-T T.81 and T.87, a start-of-frame segment. JPEG 2000: ITU-T T.800, the SIZ segment.
"""

import struct

_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}  # F7: JPEG-LS
_BARE = {0x01, 0xD8, *range(0xD0, 0xD8)}  # markers without a length


def stated_size(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG, JPEG-LS or JPEG 2000 codestream, or None where none is found."""
    start = frame.find(b"\xff\x4f\xff\x51", 0, 512)  # a JP2 box may come before it
    try:
        if start >= 0:
            width, height, left, top = struct.unpack_from(">4I", frame, start + 8)
            return height - top, width - left
        return _jpeg_size(frame) if frame[:2] == b"\xff\xd8" else None
    except struct.error:  # the segment is cut off
        return None


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in _FRAMES:
            rows, columns = struct.unpack_from(">HH", frame, at + 5)
            return rows, columns
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker == 0xDA:  # the scan starts: there was no frame header
            return None
        else:
            (length,) = struct.unpack_from(">H", frame, at + 2)
            at += 2 + length
    return None
