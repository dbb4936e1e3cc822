"""One geometry for a whole image or volume: which part of it is seen, and whether mirrored; for pixels and coordinates.

A part is given in fractions of the width and height; beyond 0 to 1 it shows black around the image. It fills the frame
that the whole image had, so that sizes, frames and with them the length of a sample stay what was planned. A volume's
slices are all changed alike, and none is left out: the third axis stays.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from data_pipelines.media.raster import resize
from data_pipelines.record import Media
from umit_jax.targets import Frame, Target, check_target


@dataclasses.dataclass(frozen=True)
class Geometry:
    """low, high: corners of the part that is seen, (x, y) in fractions of the image. flips: mirrored along x, along y,
    after that."""

    low: tuple[float, float] = (0.0, 0.0)
    high: tuple[float, float] = (1.0, 1.0)
    flips: tuple[bool, bool] = (False, False)

    def coordinates(self, coords: Sequence[float], size: Sequence[float]) -> list[float]:
        """A point or a box (two corners) of an image of this size, where it is seen. What lies within a rounding error
        beyond the border is on it."""
        axes = len(size)
        moved = [list(coords[i : i + axes]) for i in range(0, len(coords), axes)]
        for axis in (0, 1):
            low, high, extent = self.low[axis], self.high[axis], size[axis]
            for corner in moved:
                seen = (corner[axis] - low * extent) / (high - low)
                seen = extent - seen if self.flips[axis] else seen
                corner[axis] = min(max(seen, 0.0), extent) if -1e-6 < seen / extent < 1 + 1e-6 else seen
            if self.flips[axis] and len(moved) == 2:
                moved[0][axis], moved[1][axis] = moved[1][axis], moved[0][axis]
        return [c for corner in moved for c in corner]

    def target(self, target: Target) -> Target:
        """Boxes and points where they are seen, in the frame of the same size; what has no coordinates as it is.
        Raises TargetError for what is not wholly seen."""
        key = {"boxes": "box", "points": "point"}.get(target["kind"])
        if key is None:
            return target
        frame = Frame.from_json(target["frame"])
        items = [{**item, key: self.coordinates(item[key], frame.size)} for item in target["items"]]
        seen = dataclasses.replace(frame, mm_per_unit=self._spacing(frame.mm_per_unit))
        return check_target({**target, "frame": seen.to_json(), "items": items})

    def media(self, media: Media) -> Media:
        """The media with the spacing its pixels have when they are seen so."""
        return dataclasses.replace(media, spacing_mm=self._spacing(media.spacing_mm))

    def _spacing(self, mm: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if mm is None:
            return None
        return (*(m * (high - low) for m, low, high in zip(mm[:2], self.low, self.high, strict=True)), *mm[2:])

    def pixels(self, frame: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
        """A decoded frame (h, w, 3) as it is seen, at the size planned for the whole."""
        height, width = frame.shape[:2]
        box = np.array([*self.low, *self.high]) * (width, height, width, height)
        left, top = (max(math.ceil(-float(c)), 0) for c in box[:2])
        right, bottom = (max(math.ceil(float(c - s)), 0) for c, s in zip(box[2:], (width, height), strict=True))
        if left or top or right or bottom:
            frame = np.pad(frame, ((top, bottom), (left, right), (0, 0)))
            box += (left, top, left, top)
        x1, y1, x2, y2 = (float(c) for c in box)
        seen = resize(frame, size_wh, (x1, y1, min(x2, frame.shape[1]), min(y2, frame.shape[0])))
        return seen[:: -1 if self.flips[1] else 1, :: -1 if self.flips[0] else 1]
