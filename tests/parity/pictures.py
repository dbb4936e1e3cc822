"""Picture files in every mode and size that a hospital's or a user's folder may hold, made from a seed."""

import io

import numpy as np
from PIL import Image

# mode of the file: (format, how the random pixels become it)
KINDS = (
    *("L.png", "L.jpg", "L.tif", "L+key.png", "LA.png", "1.png", "1.tif"),
    *("RGB.png", "RGB.jpg", "RGB.tif", "RGB+key.png", "RGBA.png", "RGBA.tif", "YCbCr.tif", "LAB.tif"),
    *("P.png", "P+key.png", "P+alpha.png", "P.tif", "CMYK.jpg", "CMYK.tif"),
    *("I;16.png", "I;16.tif", "I;16B.tif", "I.tif", "F.tif"),
)
_FORMATS = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF"}


def picture(kind: str, size_wh: tuple[int, int], seed: int, orientation: int = 1) -> bytes:
    """An encoded file. kind: one of KINDS. orientation: Exif's number, 1 to 8; 1 writes no Exif data."""
    name, _, ending = kind.partition(".")
    mode, _, extra = name.partition("+")
    image, options = _image(mode, size_wh, np.random.default_rng(seed)), {}
    if extra == "key":  # one colour is transparent
        options["transparency"] = {"L": 70, "RGB": (70, 80, 90), "P": 3}[mode]
    elif extra == "alpha":  # every colour of the palette has its own transparency
        options["transparency"] = bytes(range(0, 256, 16))
    if orientation != 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, _FORMATS[ending], **options)
    return buffer.getvalue()


def smooth(size_wh: tuple[int, int], channels: int, rng: np.random.Generator) -> np.ndarray:
    """float (h, w, channels) in 0..255: blobs with some noise on them, so that resizing has both to keep."""
    width, height = size_wh
    small = Image.fromarray(rng.integers(0, 256, (4, 5 * channels), dtype=np.uint8))
    planes = np.asarray(small.resize((width * channels, height), Image.Resampling.BILINEAR), np.float64)
    planes = planes.reshape(height, channels, width).transpose(0, 2, 1)
    return np.clip(planes + rng.normal(0, 25, planes.shape), 0, 255)


def _image(mode: str, size_wh: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    if mode in ("I;16", "I;16B", "I", "F"):
        values = smooth(size_wh, 1, rng)[..., 0] * rng.choice([0.9, 1.7, 16.0, 250.0])
        dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}[mode]
        values = values - 40.0 if mode in ("I", "F") else values
        return Image.fromarray(values.astype(dtype))
    channels = {"L": 1, "1": 1, "LA": 2, "RGBA": 4, "CMYK": 4}.get(mode, 3)
    pixels = smooth(size_wh, channels, rng).astype(np.uint8)
    if mode == "P":
        return Image.fromarray(pixels).quantize(16)
    if mode in ("1", "YCbCr"):
        return Image.fromarray(pixels[..., 0] if channels == 1 else pixels).convert(mode)
    return Image.frombytes(mode, size_wh, pixels.tobytes())
