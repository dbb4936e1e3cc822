"""Pixels -> the patches that a Qwen vision tower reads, as its Hugging Face processor cuts them, kept as uint8.

Each side is rounded to a multiple of 28 (14-pixel patches, merged 2x2), bicubic in Pillow. Two frames make one temporal
patch: an image repeats its frame, a video of odd length its last one. Patches come in 2x2 blocks, block row by block
row, so that four consecutive ones merge into one vision token; the values of a patch are ordered (channel, time, y, x).
For a tower with windows (Qwen2.5-VL) the blocks are then put in the order of the windows, so that the device need not.
Reference: transformers, models/qwen2_vl/image_processing_pil_qwen2_vl.py and video_processing_qwen2_vl.py.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from data_pipelines.media.raster import load, pixels, planes
from data_pipelines.record import Media

Grid = tuple[int, int, int]  # temporal patches, patch rows, patch columns
# (number of the media in its sample, frames (h, w, 3) uint8, (w, h) planned) -> uint8 (t, h, w, 3) of that size
Show = Callable[[int, Sequence[np.ndarray], tuple[int, int]], np.ndarray]

# A volume has no time. It passes as a video at the speed Qwen samples videos with, so that a temporal patch of two
# slices takes one second: what transformers assumes too where a model is given no second_per_grid_ts. (Its processor
# since version 5 takes frames without metadata for 24 a second: give it video_metadata with fps 2.)
FRAMES_PER_SECOND = 2


class ImageError(ValueError):
    """An image or set of images that cannot be shown to the model as asked."""


@dataclasses.dataclass(frozen=True)
class Processing:
    """How media become patches; saved with a checkpoint as preprocess.json, so that inference sees what training saw.

    min_pixels, max_pixels: bounds for one image or frame after resizing. total_pixels: bound for all media of a sample,
    counted as 28 x 28 per vision token. volume_as: a volume is one video of its slices, or one image per slice.

    The rest is what the model's family wants. window: patches along a side of the windows that its vision tower attends
    in, None where it has none. tokens_per_second: positions that a second of video takes, None where every temporal
    patch takes one. boxes: the frame in which 2D boxes are spoken, 0-1000 or pixels of the resized image.
    """

    min_pixels: int = 4 * 28 * 28
    max_pixels: int = 768 * 28 * 28
    total_pixels: int = 4 * 768 * 28 * 28
    volume_as: Literal["video", "slices"] = "video"
    patch_size: int = 14
    temporal: int = 2
    merge: int = 2
    window: int | None = None
    tokens_per_second: int | None = None
    boxes: Literal["norm1000", "resized"] = "norm1000"

    def __post_init__(self) -> None:
        choices = {"volume_as": ("video", "slices"), "boxes": ("norm1000", "resized")}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in choices:
                if value not in choices[field.name]:
                    raise ImageError(f"{field.name}: expected {' | '.join(choices[field.name])}, found {value!r}")
            elif (value is not None or field.default is not None) and (not isinstance(value, int) or value < 1):
                raise ImageError(f"{field.name}: expected a positive integer, found {value!r}")
        if self.window is not None and self.window % self.merge:
            raise ImageError(f"window: expected a multiple of {self.merge} patches, found {self.window}")
        if self.min_pixels > self.max_pixels:
            raise ImageError(f"min_pixels: {self.min_pixels} exceeds max_pixels {self.max_pixels}")

    @property
    def factor(self) -> int:
        """Pixels along a side of one vision token."""
        return self.patch_size * self.merge

    @property
    def patch_values(self) -> int:
        return 3 * self.temporal * self.patch_size**2

    @property
    def time_step(self) -> float:
        """Positions from one temporal patch of a video to the next. A volume's slices pass as FRAMES_PER_SECOND."""
        if self.tokens_per_second is None:
            return 1
        return self.tokens_per_second * self.temporal / FRAMES_PER_SECOND

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Processing":
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(value) - known):
            raise ImageError(f"processing: unknown key {unknown[0]!r}, expected {', '.join(sorted(known))}")
        return cls(**value)


@functools.lru_cache(1 << 16)
def smart_resize(h: int, w: int, min_pixels: int, max_pixels: int, factor: int = 28) -> tuple[int, int]:
    """(h, w) rounded to multiples of factor, scaled into min_pixels..max_pixels with the proportions kept."""
    if max(h, w) > 200 * min(h, w):
        raise ImageError(f"image of {w} x {h} pixels: one side is more than 200 times the other")
    rounded_h, rounded_w = round(h / factor) * factor, round(w / factor) * factor
    if rounded_h * rounded_w > max_pixels:
        scale = math.sqrt((h * w) / max_pixels)
        rounded_h, rounded_w = (math.floor(side / scale / factor) * factor for side in (h, w))
        return max(factor, rounded_h), max(factor, rounded_w)
    if rounded_h * rounded_w < min_pixels:
        scale = math.sqrt(min_pixels / (h * w))
        return math.ceil(h * scale / factor) * factor, math.ceil(w * scale / factor) * factor
    return rounded_h, rounded_w


@dataclasses.dataclass(frozen=True)
class Span:
    """One run of vision tokens: an image, a slice or a video. frames: which frames of which of the record's media."""

    media: int
    frames: range
    video: bool
    grid: Grid

    def tokens(self, merge: int) -> int:
        return math.prod(self.grid) // merge**2


def plan_spans(media: Sequence[Media], processing: Processing, max_tokens: int | None = None) -> list[Span]:
    """The spans of a record's media in order, from their sizes alone.

    When they exceed total_pixels, or max_tokens vision tokens, all are shrunk under one common bound on the pixels of a
    frame, the largest that fits. Raises ImageError when there are more frames than fit at one token each.
    """
    limit = processing.total_pixels // processing.factor**2
    limit = limit if max_tokens is None else min(limit, max_tokens)

    def spans(cap: int) -> list[Span]:
        return [span for i, m in enumerate(media) for span in _media_spans(i, m, processing, cap)]

    def count(cap: int) -> int:
        return sum(span.tokens(processing.merge) for span in spans(cap))

    if count(processing.max_pixels) <= limit:
        return spans(processing.max_pixels)
    low, high = 1, processing.max_pixels  # count(high) does not fit; is there a low that does?
    if count(low) > limit:
        raise ImageError(f"{count(low)} vision tokens at the smallest size, there is room for {max(limit, 0)}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= limit else (low, middle)
    return spans(low)


def _media_spans(index: int, media: Media, processing: Processing, cap: int) -> Iterator[Span]:
    width, height = media.size[:2]
    low, high = min(processing.min_pixels, cap), min(processing.max_pixels, cap)
    h, w = (side // processing.patch_size for side in smart_resize(height, width, low, high, processing.factor))
    depth = len(media.frames)
    if media.kind == "volume" and processing.volume_as == "video":
        yield Span(index, range(depth), True, (-(-depth // processing.temporal), h, w))
    else:
        for frame in range(depth):
            yield Span(index, range(frame, frame + 1), False, (1, h, w))


def patchify(frames_THWC: np.ndarray, processing: Processing | None = None) -> tuple[np.ndarray, Grid]:
    """uint8 frames whose sides are multiples of 28 -> (patches_PC uint8, grid). T = 1 is an image."""
    p = processing or Processing()
    frames, height, width, channels = frames_THWC.shape
    grid = -(-frames // p.temporal), height // p.patch_size, width // p.patch_size
    out_PC = np.empty((math.prod(grid), channels * p.temporal * p.patch_size**2), np.uint8)
    _cut([[frame[..., c] for c in range(channels)] for frame in frames_THWC], grid, p, out_PC)
    return out_PC, grid


def _cut(planes_TC: Sequence[Sequence[np.ndarray]], grid: Grid, p: Processing, out_PC: np.ndarray) -> None:
    """Planes (h, w) of each frame into contiguous out_PC, as patchify has them. The rows of a patch are moved as one
    value of `side` bytes, and its second frame, which an image repeats, as one of side**2: several times as fast as
    byte by byte."""
    side, merge, channels = p.patch_size, p.merge, len(planes_TC[0])
    line, patch = np.dtype((np.void, side)), np.dtype((np.void, side**2))
    rows, columns = grid[1] // merge, grid[2] // merge
    out = out_PC.view(line).reshape(grid[0], rows, columns, merge, merge, channels, p.temporal, side)
    for t, frame in enumerate(planes_TC):
        for c, plane in enumerate(frame):
            lines = np.ascontiguousarray(plane).view(line).reshape(rows, merge, side, columns, merge)
            out[t // p.temporal, :, :, :, :, c, t % p.temporal] = lines.transpose(0, 3, 1, 4, 2)
    last = (len(planes_TC) - 1) % p.temporal
    whole = out[-1].view(patch)
    whole[..., last + 1 :, :] = whole[..., last : last + 1, :]  # the last frame again where one is missing


@functools.lru_cache(4096)
def patch_hw(grid: Grid, merge: int = 2) -> np.ndarray:
    """patch_hw_P2 int32: row and column of each patch of a grid, in the order of `patchify`. Read-only."""
    t, h, w = grid
    hw = np.indices((h, w), np.int32).transpose(1, 2, 0)
    blocks = hw.reshape(h // merge, merge, w // merge, merge, 2).transpose(0, 2, 1, 3, 4).reshape(-1, 2)
    out = np.tile(blocks, (t, 1))
    out.flags.writeable = False
    return out


@functools.lru_cache(4096)
def window_order(grid: Grid, window: int | None, merge: int = 2) -> np.ndarray:
    """The merged patches of a grid in the order of their windows (frame by frame, row by row), int; without a window,
    as `patchify` has them. Read-only. Reference: transformers, vision_utils.py, get_vision_window_index."""
    t, rows, columns = grid[0], grid[1] // merge, grid[2] // merge
    order = np.arange(t * rows * columns)
    if window is not None:
        side = window // merge
        frame, row, column = np.indices((t, rows, columns)).reshape(3, -1)
        order = np.lexsort((order, column // side, row // side, frame))
    order.flags.writeable = False
    return order


def in_order(values_PX: np.ndarray, order_M: np.ndarray) -> np.ndarray:
    """Rows of patches, merge**2 to a merged patch, with their merged patches in this order."""
    blocks = values_PX.reshape(len(order_M), -1, values_PX.shape[-1])
    return blocks[order_M].reshape(values_PX.shape)


def media_patches(
    index: int,
    media: Media,
    spans: Sequence[Span],
    processing: Processing,
    show: Show | None = None,
    out_PC: np.ndarray | None = None,
) -> np.ndarray:
    """patches_PC of the spans of the sample's index-th media, one after the other: its frames decoded, brought to the
    planned size (by `show`, if it is given), cut and put in the order of windows. out_PC: where they go, contiguous and
    of exactly their number. Raises ImageError on a wrong size."""
    frames = []
    for data in media.frames:
        frames.append(load(data))
        if frames[-1].size != tuple(media.size[:2]):
            raise ImageError(f"media.size: {media.size[:2]} recorded, {frames[-1].size} decoded")
    _, rows, columns = spans[0].grid
    size_wh = columns * processing.patch_size, rows * processing.patch_size
    if show is None:
        planes_TC = [planes(frame, size_wh) for frame in frames]
    else:
        shown_THWC = show(index, [pixels(frame) for frame in frames], size_wh)
        planes_TC = [[frame[..., c] for c in range(3)] for frame in shown_THWC]
    count = sum(math.prod(span.grid) for span in spans)
    room_PC = np.empty((count, processing.patch_values), np.uint8) if out_PC is None else out_PC
    first = 0
    for span in spans:
        own_PC = room_PC[first : first + math.prod(span.grid)]
        _cut(planes_TC[span.frames.start : span.frames.stop], span.grid, processing, own_PC)
        if processing.window is not None:
            own_PC[:] = in_order(own_PC, window_order(span.grid, processing.window, processing.merge))
        first += len(own_PC)
    return room_PC
