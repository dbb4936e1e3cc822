"""PNG, JPEG and TIFF: bytes -> uint8 RGB, exactly as `transformers` reads an image path, and back to PNG bytes.

The Exif orientation is applied, then Pillow converts to RGB: alpha is dropped, CMYK and palettes are expanded, and
16-bit greys are clipped to 8 bits as Pillow does. A model that is served through `transformers` sees the same pixels.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data_pipelines.media import MediaError

MAX_PIXELS = 1 << 28  # 268 million: a whole-slide thumbnail passes, a decompression bomb does not
FORMATS = ("PNG", "JPEG", "TIFF", "MPO")  # MPO: what cameras call a JPEG with a preview inside


def _open(source: Path | str | bytes) -> Image.Image:
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(file, formats=FORMATS)
    except FileNotFoundError:
        raise
    except Image.DecompressionBombError:
        raise MediaError("image too large") from None
    except (OSError, ValueError, SyntaxError, KeyError):
        raise MediaError("not a PNG, JPEG or TIFF image") from None
    if image.width * image.height > MAX_PIXELS:
        raise MediaError("image too large")
    return image


def read_image(source: Path | str | bytes) -> np.ndarray:
    """Pixels of a file (path, or its bytes) as uint8 (h, w, 3). A missing path is FileNotFoundError, anything else
    that cannot be read MediaError. Of a file with several pages the first is read."""
    try:
        with _open(source) as image, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (FileNotFoundError, MediaError):
        raise
    except Exception:  # a damaged file raises whatever its decoder met first
        raise MediaError("truncated or damaged image") from None


def decode(data: bytes) -> np.ndarray:
    """uint8 (h, w, 3) of encoded bytes."""
    return read_image(data)


def encoded_size(data: bytes) -> tuple[int, int]:
    """(w, h) of encoded bytes as `decode` would give them, from the header alone."""
    with _open(data) as image:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (image.height, image.width) if turned else (image.width, image.height)


def encode_png(pixels: np.ndarray) -> bytes:
    """PNG bytes of uint8 (h, w) grey or (h, w, 3) RGB."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(f"pixels: expected uint8 (h, w) or (h, w, 3), found {pixels.dtype}{list(pixels.shape)}")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def resize(pixels: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """uint8 pixels at another (w, h), bicubic with antialiasing."""
    if pixels.shape[1::-1] == tuple(size_wh):
        return pixels
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size_wh, Image.Resampling.BICUBIC))


def shrink(pixels: np.ndarray, max_side: int) -> np.ndarray:
    """uint8 pixels scaled down, keeping the proportions, until neither side exceeds max_side."""
    height, width = pixels.shape[:2]
    scale = max_side / max(height, width)
    return pixels if scale >= 1 else resize(pixels, (max(round(width * scale), 1), max(round(height * scale), 1)))
