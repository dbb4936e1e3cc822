"""PNG, JPEG, TIFF and BMP: bytes -> uint8 RGB, exactly as `transformers` reads an image path, and back to PNG bytes.

The Exif orientation is applied, then Pillow converts to RGB: alpha is dropped, CMYK and palettes are expanded. One
colour marked as transparent becomes white. A model that is served through `transformers` sees the same pixels.
Greys of more than 8 bits are clipped to 0-255, which leaves little of a radiograph: nothing in such a file says which
values matter, and scaling them would differ from what the served model is shown. DICOM and NIfTI files are windowed.
Reference: transformers, image_utils.load_image, then image_transforms.convert_to_rgb, which its processors apply.
"""

import functools
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

from data_pipelines.media import MediaError
from data_pipelines.media.resample import bands, bicubic

logger = logging.getLogger(__name__)
_DEEP = ("I;16", "I;16L", "I;16B", "I", "F")
MAX_PIXELS = 1 << 28  # 268 million: a whole-slide thumbnail passes, a decompression bomb does not
_YCBCR = 6  # of PHOTOMETRIC_INTERPRETATION
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "MPO")  # MPO: what cameras call a JPEG with a preview inside


def _open(data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise MediaError("image too large") from None
    except (OSError, ValueError, SyntaxError, KeyError):
        raise MediaError("not a PNG, JPEG, TIFF or BMP image") from None
    if image.width * image.height > MAX_PIXELS:
        raise MediaError("image too large")
    if image.format == "TIFF" and image.mode == "RGB":
        _mend_ycbcr(image)
    return image


def _mend_ycbcr(image: Any) -> None:
    """Pillow before 13 takes a pixel of an uncompressed TIFF in YCbCr for four bytes of RGB; it has three."""
    wrong = all(tile.codec_name == "raw" and tile.args[0] == "RGBX" for tile in image.tile)
    if wrong and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == _YCBCR:
        image._mode = "YCbCr"
        image.tile = [tile._replace(args=("YCbCr", *tile.args[1:])) for tile in image.tile]


def load(source: Path | str | bytes) -> Image.Image:
    """The picture in a file (path, or its bytes) in mode RGB, or L where that is how it is stored: its three planes are
    the same. A missing path is FileNotFoundError, anything else that cannot be read MediaError. Of a file with several
    pages the first is read."""
    # Pillow maps an uncompressed TIFF that it opens by name into memory, and garbles it when it is to be turned.
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        with _open(data) as image, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if image.mode in _DEEP:
                _warn_of_clipping()
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode == "RGB" or (image.mode == "L" and "transparency" not in image.info):
                rgb = image
            else:
                rgb = image.convert("RGB")
            return rgb if rgb.info.get("transparency") is None else _on_white(rgb)
    except MediaError:
        raise
    except Exception:  # a damaged file raises whatever its decoder met first
        raise MediaError("truncated or damaged image") from None


def pixels(image: Image.Image) -> np.ndarray:
    """uint8 (h, w, 3) of a picture that `load` gave."""
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def planes(image: Image.Image, size_wh: tuple[int, int]) -> list[np.ndarray]:
    """The three planes (h, w) uint8 of a picture that `load` gave, at another size: bicubic with antialiasing. A grey
    one is resized once; what the three bands of Pillow's RGB would become is the same."""
    found = bands(image) if image.size == tuple(size_wh) else bicubic(image, size_wh)
    return found * (3 // len(found))


def read_image(source: Path | str | bytes) -> np.ndarray:
    """uint8 (h, w, 3) of a file or its bytes. Raises what `load` raises."""
    return pixels(load(source))


@functools.cache
def _warn_of_clipping() -> None:
    """Once in a process: a folder may hold thousands of such files."""
    logger.warning(
        "a picture has more than 8 bits a pixel: what is brighter than 255 becomes white, as transformers reads it; "
        "DICOM and NIfTI files are windowed"
    )


def _on_white(image: Image.Image) -> Image.Image:
    """An image with a transparent colour, laid on white."""
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def decode(data: bytes) -> np.ndarray:
    """uint8 (h, w, 3) of encoded bytes."""
    return read_image(data)


def encode_png(pixels: np.ndarray) -> bytes:
    """PNG bytes of uint8 (h, w) grey or (h, w, 3) RGB."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(f"pixels: expected uint8 (h, w) or (h, w, 3), found {pixels.dtype}{list(pixels.shape)}")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def resize(
    pixels: np.ndarray, size_wh: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """uint8 pixels at another (w, h), bicubic with antialiasing. box: the part (x1, y1, x2, y2) that is taken."""
    whole = (0, 0, pixels.shape[1], pixels.shape[0])
    if pixels.shape[1::-1] == tuple(size_wh) and box in (None, whole):
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize(size_wh, Image.Resampling.BICUBIC, box=box))


def shrink(pixels: np.ndarray, max_side: int) -> np.ndarray:
    """uint8 pixels scaled down, keeping the proportions, until neither side exceeds max_side."""
    height, width = pixels.shape[:2]
    scale = max_side / max(height, width)
    return pixels if scale >= 1 else resize(pixels, (max(round(width * scale), 1), max(round(height * scale), 1)))
