"""Volumes, slices and pictures -> views: what is shown as encoded frames, with boxes and points in the shown grid.

Boxes are the bounds of a mask on its own grid, scaled to the shown one, so that resampling never loosens them. Masks
lie on the grid of the volume they describe and follow it through every turn, crop and change of size.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.media.raster import encode_png, resize
from data_pipelines.media.volume import (
    PLANES,
    Volume,
    apply_window,
    default_window,
    oriented,
    render,
    to_mm,
    to_voxels,
    window_range,
)
from data_pipelines.record import Media
from data_pipelines.sources.measure import Masks, boxes_of
from data_pipelines.sources.study import Coordinates, Facts, View
from umit_jax.targets import TargetError

_ROUNDING = 1e-4  # of a voxel
MIN_PIXELS = 20  # of a structure in a slice, on the slice's own grid, to be called visible there


def between(coords: Sequence[float], source: Volume, to: Volume) -> Coordinates:
    """A point, or a box, of one voxel frame in that of another grid of the same patient with parallel axes. Raises
    TargetError for what lies outside of it by more than rounding."""
    corners = np.asarray(coords, float).reshape(-1, 3)
    moved = to_voxels(to, to_mm(source, corners))
    if len(moved) == 2:
        moved = np.stack([moved.min(axis=0), moved.max(axis=0)])
    if (moved < -_ROUNDING).any() or (moved > np.array(to.size) + _ROUNDING).any():
        raise TargetError(f"coordinates outside a volume of {to.size} voxels: {moved.ravel().tolist()}")
    moved = np.clip(moved, 0.0, to.size)
    return tuple(round(float(c), 6) for c in moved.ravel())


def volume_view(
    volume: Volume,
    masks: Masks,
    *,
    key: str,
    size_xyz: Sequence[int],
    window: str = "",
    plane: str = "axial",
    points: Mapping[str, Coordinates] | None = None,
    facts: Facts | None = None,
    how: str = "",
) -> View:
    """A volume as size_xyz = (w, h, slices). points: in the voxel frame of `volume`. Every mask that is not empty gives
    its boxes."""
    frames, shown = render(volume, window, size_xyz, plane)
    boxes = {name: tuple(between(box, volume, shown) for box in boxes_of(mask)) for name, mask in masks.items()}
    media = Media(
        tuple(encode_png(frame) for frame in frames),
        "volume",
        volume.modality,
        shown.size,
        tuple(round(mm, 4) for mm in shown.spacing_mm),
        PLANES[plane],
        window or default_window(volume.modality),
    )
    return View(
        key,
        media,
        {name: found for name, found in boxes.items() if found},
        {name: between(point, volume, shown) for name, point in (points or {}).items()},
        facts or Facts(),
        how,
    )


def slice_view(
    volume: Volume,
    masks: Masks,
    *,
    key: str,
    plane: str,
    index: int,
    size_wh: tuple[int, int] | None = None,
    window: str = "",
    points: Mapping[str, Coordinates] | None = None,
    facts: Facts | None = None,
    how: str = "",
) -> View:
    """One slice, frame `index` of the volume turned to `plane`, at size_wh (default: square pixels, no finer than the
    finest spacing). points: in the voxel frame of `volume`; those in other slices are left out.

    Facts.visible becomes the structures with at least MIN_PIXELS in the slice, largest first, and Facts.absent those
    without any; one in between is neither asked about nor boxed.
    """
    turned = oriented(volume, PLANES[plane])
    pixels = apply_window(
        turned.voxels_ZYX[index], *window_range(turned.voxels_ZYX, window or default_window(volume.modality)),
        volume.inverted,
    )  # fmt: skip
    size_wh = size_wh or square_size(turned)
    scale = np.array(size_wh) / turned.size[:2]
    areas: dict[str, int] = {}
    boxes: dict[str, tuple[Coordinates, ...]] = {}
    for name, mask in masks.items():
        section = oriented(dataclasses.replace(volume, voxels_ZYX=mask), PLANES[plane]).voxels_ZYX[index]
        areas[name] = int(np.count_nonzero(section))
        if areas[name] >= MIN_PIXELS:
            boxes[name] = tuple(_scaled(box, scale) for box in boxes_of(section))
    placed = {name: between(point, volume, turned) for name, point in (points or {}).items()}
    visible = sorted(boxes, key=lambda name: -areas[name])
    facts = dataclasses.replace(
        facts or Facts(),
        plane=plane,
        slice_of=(index + 1, turned.size[2]),
        visible=tuple(visible),
        absent=tuple(name for name, area in areas.items() if area == 0),
    )
    spacing = tuple(round(float(mm / s), 4) for mm, s in zip(turned.spacing_mm, scale, strict=False))
    window = window or default_window(volume.modality)
    return image_view(
        resize(pixels, size_wh), volume.modality, key=key, spacing_mm=spacing, window=window, boxes=boxes,
        points={n: _scaled(p[:2], scale) for n, p in placed.items() if int(p[2]) == index}, facts=facts, how=how,
    )  # fmt: skip


def image_view(
    pixels: np.ndarray,
    modality: str,
    *,
    key: str,
    spacing_mm: tuple[float, ...] | None = None,
    window: str = "",
    boxes: Mapping[str, Sequence[Coordinates]] | None = None,
    points: Mapping[str, Coordinates] | None = None,
    facts: Facts | None = None,
    how: str = "",
) -> View:
    """A picture, uint8 (h, w) or (h, w, 3), with boxes and points in its pixels."""
    size = (pixels.shape[1], pixels.shape[0])
    media = Media((encode_png(pixels),), "image", modality, size, spacing_mm, "", window)
    known = {name: tuple(found) for name, found in (boxes or {}).items() if found}
    return View(key, media, known, dict(points or {}), facts or Facts(), how)


def square_size(volume: Volume, longest: int = 512) -> tuple[int, int]:
    """(w, h) that shows a slice of the volume with square pixels as fine as its finest spacing, at most `longest`."""
    extent = np.array(volume.size[:2]) * volume.spacing_mm[:2]
    pixel = max(min(volume.spacing_mm[:2]), float(extent.max()) / longest)
    width, height = (max(round(float(mm / pixel)), 1) for mm in extent)
    return width, height


def _scaled(coords: Sequence[float], scale: np.ndarray) -> Coordinates:
    return tuple(round(float(c * scale[i % 2]), 6) for i, c in enumerate(coords))
