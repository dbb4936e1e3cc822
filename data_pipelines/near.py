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
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.fft import dctn

from data_pipelines.record import Media

SIGNS, THUMBNAIL = 8, 16  # bytes of signs; side of the thumbnail in pixels
WIDTH = SIGNS + THUMBNAIL**2
MAX_SIGNS, MAX_LEVELS = 6, 6.0
_BLOCK = 1 << 20  # candidate pairs whose signs are compared together
_COMPARED = 1 << 14  # and whose thumbnails are
_FEW, _MANY = 16, 1 << 14  # images of the second set looked up together


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


class Fingerprints:
    """Those of many images, from the files that hold them, one after the other: the signs in memory, eight bytes an
    image, the thumbnails on the disk until two of them are compared."""

    def __init__(self, files: Sequence[Path]) -> None:
        """files: .npy of uint8 (n, WIDTH)."""
        self._files = [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]
        self._starts = np.cumsum([0, *(len(rows) for rows in self._files)])
        self.signs = np.concatenate([np.empty(0, np.uint64), *(_signs(rows) for rows in self._files)])

    def thumbnails(self, numbers: np.ndarray) -> np.ndarray:
        """int16 (n, pixels) of the images of these numbers."""
        found = np.empty((len(numbers), THUMBNAIL**2), np.int16)
        file = np.searchsorted(self._starts, numbers, "right") - 1
        for i in np.unique(file):
            found[file == i] = self._files[i][numbers[file == i] - self._starts[i], SIGNS:]
        return found


def _signs(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows[:, :SIGNS]).view(np.uint64).reshape(-1)


def near_partners(prints: Fingerprints, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """For each image of `first`, the position in `second` of one that is near it, or -1; both are numbers of images.

    Which one of several is told is the same every time, but need not be the nearest.
    """
    partner = np.full(len(first), -1, np.int64)
    low, size = 0, _FEW
    while low < len(second):  # in growing steps, so that most of a thousand black images are settled by the first few
        some = np.arange(low, min(low + size, len(second)))
        for two in itertools.combinations(range(SIGNS), 2):
            alone = np.flatnonzero(partner < 0)
            for i, j in _candidates(prints.signs[first[alone]], prints.signs[second[some]], two):
                _compare(prints, first, second, alone[i], some[j], partner)
        low, size = low + size, min(4 * size, _MANY)
    return partner


def _compare(
    prints: Fingerprints, first: np.ndarray, second: np.ndarray, i: np.ndarray, j: np.ndarray, partner: np.ndarray
) -> None:
    """Notes in `partner` which pairs (i, j) are near."""
    close = np.bitwise_count(prints.signs[first[i]] ^ prints.signs[second[j]]) <= MAX_SIGNS
    i, j = i[close], j[close]
    for low in range(0, len(i), _COMPARED):
        a, b = i[low : low + _COMPARED], j[low : low + _COMPARED]
        a, b = a[partner[a] < 0], b[partner[a] < 0]
        levels = np.abs(prints.thumbnails(first[a]) - prints.thumbnails(second[b])).mean(1)
        near = np.flatnonzero(levels <= MAX_LEVELS)[::-1]  # of several the first stays
        partner[a[near]] = b[near]


def _candidates(first: np.ndarray, second: np.ndarray, two: tuple[int, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Arrays (i, j) of pairs that agree in these two bytes of their signs, about _BLOCK pairs at a time."""
    keys, wanted = (_two_bytes(signs, *two) for signs in (first, second))
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    start = np.searchsorted(keys, wanted, "left")
    count = np.searchsorted(keys, wanted, "right") - start
    ends = np.cumsum(count)
    low = 0
    while low < len(wanted):
        done = ends[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(ends, done + _BLOCK, "right")))
        n = count[low:high]
        within = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        yield order[np.repeat(start[low:high], n) + within], np.repeat(np.arange(low, high), n)
        low = high


def _two_bytes(signs: np.ndarray, a: int, b: int) -> np.ndarray:
    """uint16 (n,) of bytes a and b of each."""
    bytes_ = signs.view(np.uint8).reshape(-1, SIGNS)
    return bytes_[:, a].astype(np.uint16) << 8 | bytes_[:, b]
