"""A published picture file -> Media: its own encoded bytes where they say what is shown, without what else they say.

A JPEG or PNG in grey or RGB stays as it was compressed; its comments, Exif, XMP and colour profile, where names, dates
and places hide, are cut out of the container, which leaves the pixels as they are. Everything else (CMYK, palettes,
transparency, pictures to be turned, TIFF) becomes a PNG of the pixels that raster.read_image gives.
"""

import dataclasses
import io
import struct
import warnings

import numpy as np
from PIL import Image

from data_pipelines.media import MediaError
from data_pipelines.media.raster import encode_png, read_image
from data_pipelines.record import Media

_ORIENTATION = 0x0112
_JPEG_KEPT = (0xE0, 0xEE)  # JFIF, and Adobe's, which says how the colours are coded
_PNG_KEPT = (b"IHDR", b"IDAT", b"IEND", b"gAMA", b"sRGB", b"cHRM", b"pHYs", b"sBIT")


def picture(data: bytes, modality: str) -> Media:
    """One image as Media, from the bytes of its file. modality: see Media. Raises MediaError."""
    pixels = read_image(data)
    height, width = pixels.shape[:2]
    return Media((_bare(data) or encode_png(pixels),), "image", modality, (width, height))


def _bare(data: bytes) -> bytes | None:
    """The file without its texts, or None where it has to be written anew."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            turned = image.getexif().get(_ORIENTATION, 1) != 1
            if turned or image.mode not in ("L", "RGB") or "transparency" in image.info:
                return None
            kind = image.format
    try:
        bare = _bare_jpeg(data) if kind == "JPEG" else _bare_png(data) if kind == "PNG" else None
    except (struct.error, IndexError):
        return None
    return bare


def _bare_jpeg(data: bytes) -> bytes | None:
    """Marker segments up to the first scan, less APPn (but _JPEG_KEPT) and comments; then up to the end of image."""
    kept, at = [data[:2]], 2
    while True:
        if data[at] != 0xFF:
            return None
        if data[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        marker = data[at + 1]
        if marker == 0xDA:
            end = data.find(b"\xff\xd9", at)
            if end < 0 or end != data.rfind(b"\xff\xd9"):  # something follows the image: another one, or notes
                return None
            return b"".join([*kept, data[at : end + 2]])
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in _JPEG_KEPT or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(data[at : at + 2 + length])
        at += 2 + length


def _bare_png(data: bytes) -> bytes | None:
    """The chunks of _PNG_KEPT. None for an animation, or a file whose end is missing."""
    kept, at = [data[:8]], 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"acTL":
            return None
        if kind in _PNG_KEPT:
            kept.append(data[at : at + 12 + length])
        at += 12 + length
        if kind == b"IEND":
            return b"".join(kept)


def same_picture(media: Media, data: bytes | None) -> Media:
    """An image with these bytes (a JPEG's) for its own, where they decode to the very same pixels."""
    try:
        kept = picture(data, media.modality).frames if data else media.frames
    except MediaError:
        return media
    same = np.array_equal(read_image(kept[0]), read_image(media.frames[0]))
    return dataclasses.replace(media, frames=kept) if same else media
