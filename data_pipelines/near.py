"""Near-duplicates across splits: images that show the same and differ in encoding, size or a little noise.

A fingerprint is 64 signs of the low frequencies (the perceptual hash: DCT of the 32 x 32 grey image, its 8 x 8 slowest
terms against their median) and a 16 x 16 grey thumbnail. Two images are near when at most 6 signs differ and the
thumbnails differ by at most 6 grey levels on average: the signs find candidates among millions without comparing all
pairs, the thumbnails keep apart what merely has the same layout, as radiographs do.

Six changed signs leave at least two of the eight bytes alone, so every near pair agrees in some two bytes: looking up
each image under its 28 pairs of bytes finds them all.
"""

import io
import itertools
from collections.abc import Iterator

import numpy as np
from PIL import Image
from scipy.fft import dctn

from data_pipelines.record import Media

SIGNS, THUMBNAIL = 8, 16  # bytes of signs; side of the thumbnail in pixels
WIDTH = SIGNS + THUMBNAIL**2
MAX_SIGNS, MAX_LEVELS = 6, 6.0
_BLOCK = 1 << 20  # candidate pairs looked at together


def fingerprint(media: Media) -> np.ndarray:
    """uint8 (WIDTH,) of an image, or of a volume's middle frame."""
    with Image.open(io.BytesIO(media.frames[len(media.frames) // 2])) as image:
        image.draft("L", (128, 128))  # a JPEG decodes at the nearest eighth, which is all that is looked at
        grey = image.convert("L")
    small = np.asarray(grey.resize((32, 32), Image.Resampling.BOX), np.float64)
    low = np.asarray(dctn(small, norm="ortho"))[:8, :8].reshape(-1)
    signs = np.packbits(low > np.median(low[1:]))  # the first term is the brightness
    thumbnail = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    return np.concatenate([signs, thumbnail.reshape(-1)])


def near_pairs(first: np.ndarray, second: np.ndarray) -> list[tuple[int, int]]:
    """(i, j) of near images, i in first, j in second, in rising order; both are fingerprints, uint8 (n, WIDTH)."""
    found: set[tuple[int, int]] = set()
    for i, j in _candidates(first[:, :SIGNS], second[:, :SIGNS]):
        close = np.bitwise_count(first[i, :SIGNS] ^ second[j, :SIGNS]).sum(1) <= MAX_SIGNS
        i, j = i[close], j[close]
        levels = np.abs(first[i, SIGNS:].astype(np.int16) - second[j, SIGNS:].astype(np.int16)).mean(1)
        found.update(zip(i[levels <= MAX_LEVELS].tolist(), j[levels <= MAX_LEVELS].tolist(), strict=True))
    return sorted(found)


def _candidates(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Arrays (i, j) of pairs that agree in two bytes of their signs; a pair may come up more than once."""
    for a, b in itertools.combinations(range(SIGNS), 2):
        keys, wanted = (x[:, a].astype(np.uint16) << 8 | x[:, b] for x in (first, second))
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        start = np.searchsorted(keys, wanted, "left")
        count = np.searchsorted(keys, wanted, "right") - start
        ends = np.cumsum(count)
        low = 0
        while low < len(wanted):  # as many of `second` as give about _BLOCK pairs
            done = ends[low - 1] if low else 0
            high = max(low + 1, int(np.searchsorted(ends, done + _BLOCK, "right")))
            n = count[low:high]
            within = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
            yield order[np.repeat(start[low:high], n) + within], np.repeat(np.arange(low, high), n)
            low = high
