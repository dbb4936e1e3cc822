"""A DICOM series, as files or as one multi-frame file -> Volume, its slices in order of position along their normal.

File names and InstanceNumber are not looked at. What is not one stack of equal, parallel, evenly spaced slices is
refused with the reason: a gap is a missing slice, two slices in one place are a second acquisition.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_pipelines.media import MediaError
from data_pipelines.media.dicom import DicomImage, Plane, is_dicom, read_dicom
from data_pipelines.media.volume import MAX_VOXELS, Volume, check_affine

_SAME_MM = 1e-2  # slices closer than this are in one place
_UNEVEN = 0.1  # a gap may differ from the usual one by this fraction


@dataclasses.dataclass(frozen=True)
class Slice:
    pixels_YX: np.ndarray
    plane: Plane


def read_series(sources: Iterable[Path | str | bytes]) -> tuple[Volume, DicomImage]:
    """(volume, first file's image for its facts) of the DICOM files among the sources; other files are passed over.
    A copy of a slice (same instance, same pixels) is taken once. MediaError names why there is no volume."""
    slices: list[Slice] = []
    instances: dict[str, np.ndarray] = {}
    first: DicomImage | None = None
    for source in sources:
        if not is_dicom(source[:132] if isinstance(source, bytes) else _head(Path(source))):
            continue
        image = read_dicom(source)
        if first is None:
            first = dataclasses.replace(image, frames=image.frames[:1])
        _check_alike(first, image)
        if image.instance and image.instance in instances:
            if not np.array_equal(instances[image.instance], image.frames):
                raise MediaError("two slices with one instance UID")
            continue
        compact = _compact(image.frames)
        instances[image.instance] = compact
        slices += _slices(image, compact)
    if first is None:
        raise MediaError("no DICOM file in the series")
    return _stack(slices, first), first


def volume_of(image: DicomImage) -> Volume:
    """The volume that the frames of one multi-frame image form."""
    _check_alike(image, image)
    return _stack(_slices(image, _compact(image.frames)), image)


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(132)


def _check_alike(first: DicomImage, image: DicomImage) -> None:
    if image.is_rgb:
        raise MediaError("colour images do not form a volume")
    if image.series != first.series:
        raise MediaError("several series in one folder")
    if image.patient != first.patient:
        raise MediaError("several patients in one series")
    if image.frames.shape[1:] != first.frames.shape[1:]:
        raise MediaError("slices of different sizes")
    if image.spacing_mm is None or first.spacing_mm is None:
        raise MediaError("no pixel spacing")
    if not np.allclose(image.spacing_mm, first.spacing_mm, rtol=1e-3):
        raise MediaError("slices of different pixel spacing")
    if (image.modality, image.inverted) != (first.modality, first.inverted):
        raise MediaError("slices of different kinds")


def _compact(frames: np.ndarray) -> np.ndarray:
    """int16 where that is exact: half the memory of a series."""
    if frames.min() >= -32768 and frames.max() <= 32767 and np.array_equal(frames, np.rint(frames)):
        return frames.astype(np.int16)
    return frames


def _slices(image: DicomImage, frames: np.ndarray) -> list[Slice]:
    if any(plane is None for plane in image.planes):
        raise MediaError("no slice position or orientation")
    return [Slice(pixels, plane) for pixels, plane in zip(frames, image.planes, strict=True) if plane is not None]


def _stack(slices: list[Slice], first: DicomImage) -> Volume:
    if len(slices) * slices[0].pixels_YX.size > MAX_VOXELS:
        raise MediaError("volume too large")
    row, column = (np.array(axis) for axis in slices[0].plane.axes)
    if any(np.abs(np.subtract(s.plane.axes, slices[0].plane.axes)).max() > 1e-3 for s in slices):
        raise MediaError("slices are not parallel (localizer or rotating series)")
    normal = np.cross(row, column)
    order = sorted(range(len(slices)), key=lambda i: float(normal @ slices[i].plane.position_mm))
    slices = [slices[i] for i in order]
    positions = np.array([s.plane.position_mm for s in slices])
    step = _step(positions, positions @ normal, normal, first)
    affine = np.eye(4)
    spacing_x, spacing_y = first.spacing_mm or (0.0, 0.0)
    affine[:3, :4] = np.stack([row * spacing_x, column * spacing_y, step, positions[0]], axis=1)
    dtype = np.int16 if all(s.pixels_YX.dtype == np.int16 for s in slices) else np.float32
    voxels = np.stack([s.pixels_YX.astype(dtype, copy=False) for s in slices])
    return Volume(voxels, check_affine(affine), first.modality, first.inverted)


def _step(positions: np.ndarray, depths: np.ndarray, normal: np.ndarray, first: DicomImage) -> np.ndarray:
    """Vector from one slice to the next; it leaves the normal where the gantry is tilted."""
    if len(depths) == 1:
        if first.thickness_mm is None:
            raise MediaError("a single slice without a thickness")
        return normal * first.thickness_mm
    gaps = np.diff(depths)
    usual = float(np.median(gaps))
    if gaps.min() < _SAME_MM:
        raise MediaError("two slices in one place")
    if gaps.max() > 1.5 * gaps.min():
        raise MediaError("missing slice")
    if np.abs(gaps - usual).max() > max(_UNEVEN * usual, _SAME_MM):
        raise MediaError("unevenly spaced slices")
    return (positions[-1] - positions[0]) / (len(positions) - 1)
