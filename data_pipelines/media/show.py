"""Any medical image file, or a folder with a DICOM series -> the Media a model is shown, the same in training and use.

| content                                   | shown as                                                     |
| PNG, JPEG, TIFF                           | the picture                                                  |
| DICOM, one frame                          | an image, with the window the file asks for, else for CT the |
|                                           | soft tissue window                                           |
| DICOM, several placed and parallel frames | a volume                                                     |
| DICOM, several other frames (a cine)      | up to 32 of them, as a volume without spacing                |
| a folder                                  | the one DICOM series in it: a volume, slices by position     |
| NIfTI                                     | a volume                                                     |

Volumes are turned to LPS and shown as axial slices, within LARGEST voxels, unless a Layout says otherwise
(docs/volumes.md). Files are told apart by content.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.media import MediaError
from data_pipelines.media.deidentify import refuse_burned_in
from data_pipelines.media.dicom import DicomImage, is_dicom, read_dicom
from data_pipelines.media.dicom_header import named_plane
from data_pipelines.media.nifti import is_nifti, read_nifti
from data_pipelines.media.raster import encode_png, read_image, shrink
from data_pipelines.media.series import read_series, volume_of
from data_pipelines.media.volume import (
    AUTO,
    MAX_VOXELS,
    PLANES,
    Volume,
    at_spacing,
    box_of,
    crop,
    default_window,
    oriented,
    render,
    window_range,
)
from data_pipelines.record import Media

_BODY = 0.1  # of the brightness of other volumes: what is darker is air
LARGEST = (256, 256, 32)  # voxels of a volume as shown
_AIR_HU = -500.0  # a volume that goes below this is taken for CT where nobody says what it is


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a volume with a place in the patient becomes frames, step by step. plane: of the frames, one of
    volume.PLANES. spacing_mm: between pixels along x and y and between frames, to which it is resampled; None: as
    stored. foreground: what is around the body is cut off. size_xyz: (w, h, frames) exactly; None: within LARGEST."""

    plane: str = "axial"
    foreground: bool = False
    size_xyz: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.plane not in PLANES:
            raise ValueError(f"plane: expected one of {', '.join(PLANES)}, found {self.plane!r}")
        if self.size_xyz is not None and not 0 < math.prod(self.size_xyz) <= MAX_VOXELS:
            raise ValueError(f"volume size: expected three positive numbers, found {self.size_xyz}")
        if self.spacing_mm is not None and not all(0 < mm < math.inf for mm in self.spacing_mm):
            raise ValueError(f"spacing: expected three positive numbers of millimetres, found {self.spacing_mm}")


@dataclasses.dataclass(frozen=True)
class Shown:
    """media, and what it was made from. raw_size: (w, h) of an image in its own pixels, of a cine with its number of
    frames. raw, shown: of a volume, as stored and as shown. plane: of an image or of a volume's slices, "" if unknown.
    naming: words of the header that name the patient, in lower case, for comparing only."""

    media: Media
    raw_size: tuple[int, ...] | None = None
    raw: Volume | None = None
    shown: Volume | None = None
    plane: str = ""
    naming: frozenset[str] = frozenset()


def show(
    path: Path,
    *,
    window: str = "",
    modality: str = "",
    longest: int | None = None,
    refused: Sequence[str] = ("yes", "likely"),
    kinds: tuple[str, ...] = ("dicom", "nifti", "picture"),
    layout: Layout = Layout(),
) -> Shown:
    """A file or folder as it is shown.

    window: a preset of volume.WINDOWS, for what has Hounsfield units. modality: DICOM's code, for files that do not
    say. longest: side in pixels to which a larger image is shrunk. refused: see deidentify.refuse_burned_in. kinds:
    what may be read. layout: of volumes. Raises MediaError, FileNotFoundError.
    """
    if path.is_dir():
        volume, image = read_series(series_files(path))
        refuse_burned_in(image.burned_in, refused)
        return show_volume(volume, window, image.naming, layout)
    with open(path, "rb") as file:
        head = file.read(4096)
    if "dicom" in kinds and (is_dicom(head) or kinds == ("dicom",)):
        return _show_dicom(path, window, longest, refused, layout)
    if "nifti" in kinds and (is_nifti(head) or kinds == ("nifti",)):
        volume = read_nifti(path, modality)
        volume = volume if modality else dataclasses.replace(volume, modality=guess_modality(volume))
        return show_volume(volume, window, layout=layout)
    return _show_image(read_image(path), modality or "OT", None, "", longest)


def series_files(folder: Path) -> list[Path]:
    """Every file below a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def guess_modality(volume: Volume) -> str:
    """CT where values are as low as only air in Hounsfield units is, otherwise OT."""
    return "CT" if volume.voxels_ZYX.min() < _AIR_HU else "OT"


def _show_dicom(path: Path, window: str, longest: int | None, refused: Sequence[str], layout: Layout) -> Shown:
    image = read_dicom(path)
    refuse_burned_in(image.burned_in, refused)
    if len(image.frames) == 1:
        is_ct = image.modality == "CT" and not image.is_rgb
        asks = image.vois[0].window is not None or image.vois[0].lut is not None
        preset = (window or ("" if asks else default_window("CT"))) if is_ct else ""
        shown = _show_image(image.render(preset), image.modality, image.spacing_mm, preset, longest)
        return dataclasses.replace(shown, naming=image.naming, plane=named_plane(image.planes[0]))
    try:
        volume = volume_of(image)
    except MediaError:
        return _show_cine(image)
    return show_volume(volume, window, image.naming, layout)


def _show_image(
    pixels: np.ndarray, modality: str, spacing_mm: tuple[float, float] | None, window: str, longest: int | None
) -> Shown:
    height, width = pixels.shape[:2]
    small = shrink(pixels, longest) if longest else pixels
    size = (small.shape[1], small.shape[0])
    if spacing_mm is not None:
        x, y = spacing_mm
        spacing_mm = (round(x * width / size[0], 4), round(y * height / size[1], 4))
    return Shown(Media((encode_png(small),), "image", modality, size, spacing_mm, "", window), raw_size=(width, height))


def show_volume(
    volume: Volume,
    window: str = "",
    naming: frozenset[str] = frozenset(),
    layout: Layout = Layout(),
) -> Shown:
    """A volume as slices. Raises MediaError where there is no foreground, or too much at the spacing asked for."""
    preset = (window or default_window("CT")) if volume.modality == "CT" else default_window(volume.modality)
    turned = oriented(volume, PLANES[layout.plane])
    spaced = turned if layout.spacing_mm is None else at_spacing(turned, layout.spacing_mm)
    part = crop(spaced, *foreground_of(spaced)) if layout.foreground else spaced
    size_xyz = layout.size_xyz or shown_size(part.size)
    frames, shown = render(part, preset, size_xyz, layout.plane)
    x, y, z = shown.spacing_mm
    media = Media(
        frames=tuple(encode_png(frame) for frame in frames),
        kind="volume",
        modality=volume.modality,
        size=shown.size,
        spacing_mm=(round(x, 4), round(y, 4), round(z, 4)),
        orientation=shown.orientation,
        window=preset,
    )
    return Shown(media, raw=volume, shown=shown, plane=layout.plane, naming=naming)


def foreground_of(volume: Volume) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(start, stop) along x, y, z of the body: of a CT what is denser than air, else what is brighter than a tenth of
    the way from the darkest voxel to the 99.5 percentile. Raises MediaError where there is nothing."""
    values = volume.voxels_ZYX if not volume.inverted else -volume.voxels_ZYX.astype(np.float32)
    darkest, brightest = float(values.min()), window_range(values, AUTO)[1]
    box = box_of(values > (_AIR_HU if volume.modality == "CT" else darkest + _BODY * (brightest - darkest)))
    if box is None:
        raise MediaError("empty image")
    return tuple(int(c) for c in box[:3]), tuple(int(c) for c in box[3:])


def shown_size(size_xyz: tuple[int, int, int]) -> tuple[int, int, int]:
    """(w, h, d) within LARGEST: width and height shrink together, the number of slices by itself."""
    width, height, depth = size_xyz
    scale = min(LARGEST[0] / width, LARGEST[1] / height, 1.0)
    return max(round(width * scale), 1), max(round(height * scale), 1), min(depth, LARGEST[2])


def _show_cine(image: DicomImage) -> Shown:
    count = len(image.frames)
    picks = np.unique(np.linspace(0, count - 1, min(count, LARGEST[2])).round().astype(int))
    frames = [shrink(image.render(frame=int(i)), LARGEST[0]) for i in picks]
    size = (frames[0].shape[1], frames[0].shape[0], len(frames))
    media = Media(tuple(map(encode_png, frames)), "volume", image.modality, size)
    stored = image.render(frame=0).shape
    return Shown(media, raw_size=(stored[1], stored[0], count), naming=image.naming)
