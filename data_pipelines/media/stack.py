"""Voxels without a place in the patient (arrays, folders of slices) -> the volume a model is shown: docs/volumes.md.

| step        | what                                                                                    |
| orientation | axes as stored: frames are the first axis, nothing says where left is                   |
| crop        | on request, to the foreground: the box of voxels above the darkest                      |
| resize      | to (w, h, d) exactly, or within show.LARGEST; linear, masks by nearest voxel            |
| intensities | darkest to brightest stored voxel (minmax), as they are, or a window in Hounsfield units |

Everything is done by the functions of volume.py, so volumes with and without a place are shown alike.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines.media import MediaError
from data_pipelines.media.raster import encode_png
from data_pipelines.media.show import shown_size
from data_pipelines.media.volume import MAX_VOXELS, MINMAX, Volume, apply_window, box_of, crop, resample_to, windowed
from data_pipelines.record import Media


@dataclasses.dataclass(frozen=True)
class Stack:
    """media, and how it came from the stored voxels: [start, stop) of each axis (x, y, z), resized to media.size."""

    media: Media
    start_xyz: tuple[int, int, int]
    stop_xyz: tuple[int, int, int]

    def box(self, mask_ZYX: np.ndarray) -> list[float] | None:
        """Box (x1, y1, z1, x2, y2, z2), half-open, around a mask of the stored voxels, in voxels as shown; None where
        nothing of it is left."""
        shown = resample_to(crop(_placed(mask_ZYX), self.start_xyz, self.stop_xyz), self.media.size, order=0)
        return box_of(shown.voxels_ZYX)


def show_stack(
    voxels_ZYX: np.ndarray,
    modality: str,
    *,
    window: str = MINMAX,
    size_xyz: Sequence[int] | None = None,
    foreground: bool = False,
) -> Stack:
    """Any numbers (d, h, w) as a volume of grey frames, or of colour for three windows.

    window: see volume.windowed, or "" for uint8 shown as it is. size_xyz: (w, h, frames) exactly;
    None: within show.LARGEST. Raises MediaError for what is no volume.
    """
    if voxels_ZYX.ndim != 3 or min(voxels_ZYX.shape) < 1:
        raise MediaError(f"not a 3D volume ({voxels_ZYX.ndim} axes)")
    if voxels_ZYX.size > MAX_VOXELS:
        raise MediaError("volume too large")
    if voxels_ZYX.dtype.kind not in "biuf" or (not window and voxels_ZYX.dtype != np.uint8):
        raise MediaError("unsupported type of voxels")
    if voxels_ZYX.dtype.kind == "f" and not np.isfinite(voxels_ZYX).all():
        raise MediaError("non-finite voxel")
    volume = _placed(voxels_ZYX)
    start, stop = foreground_of(voxels_ZYX) if foreground else ((0, 0, 0), volume.size)
    part = crop(volume, start, stop)
    shown = resample_to(part, tuple(size_xyz) if size_xyz is not None else shown_size(part.size))
    values = shown.voxels_ZYX
    frames = windowed(values, window, whole=voxels_ZYX) if window else apply_window(values, 0.0, 255.0)
    media = Media(tuple(map(encode_png, frames)), "volume", modality, shown.size, window=window)
    return Stack(media, start, stop)


def foreground_of(voxels_ZYX: np.ndarray) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(start, stop) along x, y, z of the voxels above the darkest. Raises MediaError where all are alike."""
    box = box_of(voxels_ZYX > voxels_ZYX.min())
    if box is None:
        raise MediaError("empty image")
    x1, y1, z1, x2, y2, z2 = (int(c) for c in box)
    return (x1, y1, z1), (x2, y2, z2)


def _placed(voxels_ZYX: np.ndarray) -> Volume:
    return Volume(voxels_ZYX, np.eye(4))
