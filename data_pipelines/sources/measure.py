"""Measurements on masks: boxes, centres, volumes, diameters. Masks are (Z, Y, X) on the grid of a volume.

A structure that the edge of the volume cuts has a box and is visible, but its size and centre are not known: `whole`
tells it apart, and the functions that measure leave it out.
"""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull

Masks = Mapping[str, np.ndarray]  # bool, or integers that number several of one kind from 1


def boxes_of(mask: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Half-open bounds of a mask of any number of axes, near corner then far corner, in the order of the coordinates
    (x, y, z): one box for a bool mask, one per number for an integer one; () when it is empty."""
    numbers = mask.astype(np.uint8) if mask.dtype == bool else mask
    found = [slices for slices in ndimage.find_objects(numbers) if slices is not None]
    return tuple(tuple(s.start for s in reversed(slices)) + tuple(s.stop for s in reversed(slices)) for slices in found)


def whole(mask: np.ndarray) -> bool:
    """Whether the mask is not empty and touches no border of the array along any axis longer than one."""
    if not mask.any():
        return False
    return not any(mask.take(edge, axis).any() for axis in range(mask.ndim) if mask.shape[axis] > 1 for edge in (0, -1))


def centre(mask: np.ndarray) -> tuple[float, ...]:
    """Centre of mass in coordinates (x, y(, z)) that count from the edge of the first voxel."""
    return tuple(float(c) + 0.5 for c in reversed([axis.mean() for axis in np.nonzero(mask)]))


def centres(masks: Masks) -> dict[str, tuple[float, ...]]:
    """Centres of the whole structures."""
    return {name: centre(mask != 0) for name, mask in masks.items() if whole(mask != 0)}


def volumes_ml(masks: Masks, spacing_mm: tuple[float, float, float]) -> dict[str, float]:
    """Volumes of the whole structures in millilitres."""
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    return {name: np.count_nonzero(mask) * voxel_ml for name, mask in masks.items() if whole(mask != 0)}


def axial_diameter_mm(mask_ZYX: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
    """Longest distance across the largest axial slice of a mask, between outer corners of its voxels."""
    areas = mask_ZYX.reshape(len(mask_ZYX), -1).sum(axis=1)
    rows, columns = np.nonzero(mask_ZYX[int(areas.argmax())])
    if not len(rows):
        return 0.0
    corners = np.concatenate([np.stack([columns + dx, rows + dy], 1) for dx in (0, 1) for dy in (0, 1)])
    corners = corners * np.array(spacing_mm[:2])
    corners = corners[ConvexHull(corners).vertices]  # a voxel has four corners, so there is always an area
    return float(np.linalg.norm(corners[:, None] - corners[None], axis=-1).max())
