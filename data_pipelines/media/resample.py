"""Pillow's bicubic resize, bit for bit, in a third of its time: two passes compiled by numba.

Pillow resizes one side after the other and rounds to 8 bits in between, so the order matters: the width first, but in
Pillow 12.2 and 12.3 the height of pictures more than 100 times as tall as wide, in 13 the height wherever it falls by
more than twice what the width does. Which order is that of the installed Pillow, and whether its arithmetic is the one
here, is found out on tiny pictures of noise before the first picture is resized; where nothing agrees, or numba does
not work, Pillow resizes, after one warning. The weights of the pixels are Pillow's own: it is asked to resize single
bright pixels.
Reference: Pillow, src/PIL/Image.py: resize; src/libImaging/Resample.c: precompute_coeffs, normalize_coeffs_8bpc,
ImagingResampleInner, _ImagingResampleHorizontal_8bpc and _ImagingResampleVertical_8bpc.
"""

import functools
import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import PIL
from PIL import Image

logger = logging.getLogger(__name__)
_BITS = 22  # of a weight, behind the point
_HALF = 1 << (_BITS - 1)
_LONGEST, _LARGEST = 1 << 13, 1 << 24  # side and pixels of a picture: copies of larger ones would be felt in memory
_PIXELS = {"RGB": ("RGBX", np.int32, 3), "L": ("L", np.uint8, 1)}  # mode -> bytes of a pixel, as one value, bands

# (height, width) before and after -> are the rows resized first?
_Order = Callable[[int, int, int, int], bool]
_ORDERS: dict[str, _Order] = {
    # until 12.1, 12.2 and 12.3, since 13
    "never": lambda from_h, from_w, h, w: False,
    "very tall": lambda from_h, from_w, h, w: from_h > 100 * from_w and h < from_h,
    "height falls more": lambda from_h, from_w, h, w: from_h - h > max(0, 2 * (from_w - w)),
}
# (width, height) before and after of the pictures that are tried: both sides of each limit above, much smaller, larger.
_TRIED = (
    ((20, 24), (18, 19)),
    ((20, 24), (18, 20)),
    ((20, 24), (23, 23)),
    ((20, 24), (23, 25)),
    ((2, 201), (7, 200)),
    ((2, 201), (7, 202)),
    ((2, 200), (7, 199)),
    ((201, 2), (200, 7)),
    ((60, 50), (9, 11)),
    ((40, 60), (36, 9)),
    ((9, 7), (33, 40)),
)


class _Passes(NamedTuple):
    columns: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]
    rows: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]


def bicubic(image: Image.Image, size_wh: tuple[int, int]) -> list[np.ndarray]:
    """`bands` of a picture in mode RGB or L at another size, as `image.resize(size_wh, BICUBIC)` has them."""
    passes, order = _passes(), _order(image.mode)
    if passes is None or order is None or max(image.size) > _LONGEST or math.prod(image.size) > _LARGEST:
        return bands(image.resize(size_wh, Image.Resampling.BICUBIC))
    return list(_resampled(image, size_wh, passes, order))


def bands(image: Image.Image) -> list[np.ndarray]:
    """Each band of a picture, (h, w) uint8."""
    found = (image.tobytes("raw", band) for band in image.getbands())  # `split` would make pictures of them first
    return [np.frombuffer(band, np.uint8).reshape(image.height, image.width) for band in found]


def _resampled(image: Image.Image, size_wh: tuple[int, int], passes: _Passes, order: _Order) -> np.ndarray:
    (width, height), (from_width, from_height) = size_wh, image.size
    raw, pixel, count = _PIXELS[image.mode]
    source = np.frombuffer(image.tobytes("raw", raw), np.uint8).reshape(from_height, -1)
    columns, rows = _weights(from_width, width), _weights(from_height, height)
    out = np.empty((count, height, width), np.uint8)
    if order(from_height, from_width, height, width):
        between = np.empty((1, height, source.shape[1]), np.uint8)
        passes.rows(source[None], *rows, between)
        passes.columns(between[0].view(pixel), *columns, out)
    else:
        between = np.empty((count, from_height, width), np.uint8)
        passes.columns(source.view(pixel), *columns, between)
        passes.rows(between, *rows, out)
    return out


@functools.lru_cache(256)
def _weights(size: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """first_N uint32, weights_TN int32: pixel n of `new` is the sum over t of weights[t, n] / 2**22 times pixel
    first[n] + t of `size`. Read off Pillow's resize of combs: pixels of 2**22, T apart, of which every n sees one."""
    scale = size / new
    support = 2 * max(scale, 1.0)  # where the bicubic filter ends
    taps = min(math.ceil(2 * support), size)
    centre_N = (np.arange(new) + 0.5) * scale
    first_N = np.floor(centre_N - support + 0.5).clip(0, size - taps).astype(np.int64)
    comb = np.zeros((taps, size), np.int32)
    comb[np.arange(size) % taps, np.arange(size)] = 1 << _BITS
    seen_TN = np.asarray(Image.fromarray(comb).resize((new, taps), Image.Resampling.BICUBIC))
    weights_TN = seen_TN[(first_N + np.arange(taps)[:, None]) % taps, np.arange(new)]
    return first_N.astype(np.uint32), np.ascontiguousarray(weights_TN)


def _columns(source_HW: Any, first_N: Any, weights_TN: Any, out_CHN: Any) -> None:
    """Each row of pixels at another width. The pixels that a weight is for are brought side by side first, so that the
    sums are those of vectors; for the same reason bands are named and not counted."""
    bands, height, width = out_CHN.shape
    sums_CN = np.empty((3, width), np.int32)
    red_N, green_N, blue_N = sums_CN[0], sums_CN[1], sums_CN[2]
    seen_N = np.empty(width, np.int32)
    for y in range(height):
        sums_CN[:] = _HALF
        for t in range(len(weights_TN)):
            shifted, weights_N = source_HW[y, t:], weights_TN[t]
            for x in range(width):
                seen_N[x] = shifted[first_N[x]]
            for x in range(width):
                red_N[x] += (seen_N[x] & 255) * weights_N[x]
            if bands == 3:
                for x in range(width):
                    green_N[x] += (seen_N[x] >> 8 & 255) * weights_N[x]
                    blue_N[x] += (seen_N[x] >> 16 & 255) * weights_N[x]
        for c in range(bands):
            for x in range(width):
                out_CHN[c, y, x] = min(max(sums_CN[c, x] >> _BITS, 0), 255)


def _rows(source_CHW: Any, first_N: Any, weights_TN: Any, out_CNW: Any) -> None:
    """Each plane of bytes at another height."""
    planes, height, width = out_CNW.shape
    sums_W = np.empty(width, np.int32)
    for c in range(planes):
        for y in range(height):
            sums_W[:] = _HALF
            for t in range(len(weights_TN)):
                row_W, weight = source_CHW[c, first_N[y] + np.uint32(t)], weights_TN[t, y]
                for x in range(width):
                    sums_W[x] += np.int32(row_W[x]) * weight
            for x in range(width):
                out_CNW[c, y, x] = min(max(sums_W[x] >> _BITS, 0), 255)


@functools.cache
def _passes() -> _Passes | None:
    """_columns and _rows compiled, or None where that fails. A process pays a second for numba and for reading what it
    compiled before, which numba keeps beside this file or in the user's cache folder; three where nothing is kept."""
    problem: Exception | None = None
    for cache in (True, False):  # there may be no folder that can be written, or damaged files in it
        try:
            return _compiled(cache)
        except Exception as error:  # whatever it is: Pillow gives the same pixels
            problem = error
    logger.warning("numba does not work here, Pillow resizes pictures, which takes several times as long: %s", problem)
    return None


def _compiled(cache: bool) -> _Passes:
    from numba import njit, types

    def array(kind: Any, dimensions: int, readonly: bool = True) -> Any:
        return types.Array(kind, dimensions, "C", readonly=readonly)

    rest = array(types.uint32, 1), array(types.int32, 2), array(types.uint8, 3, readonly=False)
    columns = [types.void(array(kind, 2), *rest) for kind in (types.int32, types.uint8)]
    rows = [types.void(array(types.uint8, 3), *rest)]
    return _Passes(*(njit(s, nogil=True, cache=cache)(f) for s, f in ((columns, _columns), (rows, _rows))))


@functools.cache
def _order(mode: str) -> _Order | None:
    """The order of passes that gives what the installed Pillow gives, None where none does."""
    passes = _passes()
    if passes is None:
        return None
    count, noise = _PIXELS[mode][2], np.random.default_rng(0)
    tried = []
    for (width, height), size_wh in _TRIED:
        pixels = noise.integers(0, 256, (height, width, count), dtype=np.uint8)
        tried.append((Image.fromarray(pixels.squeeze()), size_wh))
    wanted = [bands(image.resize(size_wh, Image.Resampling.BICUBIC)) for image, size_wh in tried]
    for order in _ORDERS.values():
        found = [_resampled(image, size_wh, passes, order) for image, size_wh in tried]
        if all(map(np.array_equal, wanted, found)):
            return order
    logger.warning("Pillow %s resizes in a way that is not known here and does it itself, slower", PIL.__version__)
    return None
