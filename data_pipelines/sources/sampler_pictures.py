"""Single images of pydicom, pydicom-data, scikit-image and stardist -> one study each; nuclei by their instance masks.

Which files, and what is said of them besides their headers, stands in sampler.yaml. A file that is broken, or shows or
may show burned-in text nobody has looked at, is quarantined under its own name.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
import tifffile

from data_pipelines.media import MediaError
from data_pipelines.media.deidentify import refuse_burned_in
from data_pipelines.media.dicom import DicomImage, read_dicom
from data_pipelines.media.dicom_header import named_plane
from data_pipelines.media.raster import read_image, resize, shrink
from data_pipelines.media.volume import Volume, apply_window
from data_pipelines.sources.measure import boxes_of
from data_pipelines.sources.sampler_context import Context, Sampled
from data_pipelines.sources.study import Facts, Study, View
from data_pipelines.sources.views import image_view, volume_view

LONGEST = 384
_GAP = 32  # pixels between training and held-out tiles: more than a nucleus
_TILE, _SHOWN = 64, 112


def bundled_files() -> dict[str, bytes]:
    """The test files that the installed pydicom brings along."""
    folder = Path(str(pydicom.__file__)).parent / "data" / "test_files"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.dcm"))}


def dicom_studies(package: str, files: Mapping[str, bytes], context: Context) -> Iterator[Sampled]:
    """A study for every file of the table, two for one that is halved. files: by base name."""
    for row in context.table["dicom"][package]:
        try:
            if row["file"] not in files:
                raise MediaError("no such file in the package")
            image = read_dicom(files[row["file"]])
            refuse_burned_in(image.burned_in, ("yes",) if "reviewed" in row else ("yes", "likely"))
            yield from _dicom_studies(package, row, image, context)
        except MediaError as error:
            context.quarantine(f"{package}/{row['file']}", error.reason)


def _dicom_studies(package: str, row: Mapping, image: DicomImage, context: Context) -> Iterator[Sampled]:
    facts = Facts(plane=named_plane(image.planes[0]), region=row.get("region", ""), view=row.get("view", ""))
    pixels = image.render()
    name = row["file"].removesuffix(".dcm")
    spacing = image.spacing_mm
    if not row.get("halves"):
        view = _shown(pixels, image.modality, "image", spacing, facts)
        yield _single(package, name, row["split"], image.patient or row["file"], [view], context)
        return
    height = len(pixels)
    for split, top, bottom in (("train", 0, height // 2 - _GAP), ("test", height // 2 + _GAP, height)):
        part = _shown(pixels[top:bottom], image.modality, "half", spacing, facts)
        yield _single(package, f"{name}_{split}", split, image.patient or row["file"], [part], context, "region")


def _shown(pixels: np.ndarray, modality: str, key: str, spacing: tuple[float, ...] | None, facts: Facts) -> View:
    shown = shrink(pixels, LONGEST)
    if spacing is not None:
        spacing = tuple(round(mm * pixels.shape[1] / shown.shape[1], 4) for mm in spacing)
    return image_view(shown, modality, key=key, spacing_mm=spacing, facts=facts)


def picture_studies(package: str, files: Mapping[str, bytes], context: Context) -> Iterator[Sampled]:
    """A study for every picture of the table."""
    for row in context.table["pictures"][package]:
        name = Path(row["file"]).stem
        try:
            if row["file"] not in files:
                raise MediaError("no such file in the package")
            pixels = read_image(files[row["file"]])
        except MediaError as error:
            context.quarantine(f"{package}/{Path(row['file']).name}", error.reason)
            continue
        views = [_shown(pixels, row["modality"], "image", None, Facts())]
        side = min(pixels.shape[:2]) // 2
        if side > _SHOWN:
            for i, (y, x) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
                part = pixels[y * (len(pixels) - side) :, x * (pixels.shape[1] - side) :][:side, :side]
                views.append(_shown(part, row["modality"], f"corner_{i}", None, Facts()))
        yield _single(package, name, row["split"], row["file"], views, context)


def _single(
    package: str,
    name: str,
    split: str,
    patient: str,
    views: Sequence[View],
    context: Context,
    heldout: str = "patient",
    label_kind: str = "tag",
    pairs: Sequence[tuple[str, str]] = (),
    limits: str = "picture",
) -> Sampled:
    study = Study(
        id=f"{package}/{name}",
        dataset="sampler",
        split=split,
        patient_id=context.patient(package, patient),
        views=tuple(views),
        label_kind=label_kind,
        license=context.license(package),
        source=f"{package} {name}",
        choices=context.choices,
        comparisons=tuple(pairs),
        heldout=heldout,
    )
    return Sampled(study, context.limits(limits))


def nuclei_studies(files: Mapping[str, bytes], context: Context) -> Iterator[Sampled]:
    """Tiles of stardist's two annotated images, one 2D and one 3D: counts and boxes of nuclei. Each is one specimen, so
    a region of it, a gap away, is held out."""
    folder = "stardist/data/images/"
    try:
        image, mask, image3d, mask3d = (
            tifffile.imread(io.BytesIO(files[f"{folder}{name}.tif"])) for name in ("img2d", "mask2d", "img3d", "mask3d")
        )
    except (KeyError, ValueError, tifffile.TiffFileError):
        context.quarantine("stardist/nuclei", "truncated or damaged image")
        return
    grey = apply_window(image, *np.percentile(image, (0.5, 99.8)))
    middle = 5 * image.shape[1] // 8
    for split, left, right in (("train", 0, middle), ("test", middle + _GAP, image.shape[1])):
        corners = [
            (y, x) for y in range(0, len(image) - _TILE + 1, _TILE) for x in range(left, right - _TILE + 1, _TILE)
        ]
        views = [_tile(grey, mask, y, x) for y, x in corners]
        yield _nuclei(f"nuclei_{split}", split, "img2d", views, context)
    half = len(image3d) // 2
    for split, low, high in (("train", 0, half - 1), ("test", half + 2, len(image3d))):
        views = [
            _box_of_nuclei(image3d, mask3d, (low, y, x), (high, y + 24, x + 24))
            for y in range(0, image3d.shape[1] - 23, 12)
            for x in range(0, image3d.shape[2] - 23, 11)
        ]
        yield _nuclei(f"nuclei3d_{split}", split, "img3d", views, context)


def _nuclei(name: str, split: str, specimen: str, views: Sequence[View], context: Context) -> Sampled:
    """Neighbouring views are compared where their counts differ."""
    pairs = [(a.key, b.key) for a, b in zip(views[::2], views[1::2], strict=False) if a.facts.counts != b.facts.counts]
    return _single("stardist", name, split, specimen, views, context, "region", "manual", pairs, "nuclei")


def _most_inside(part: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The instances of which at least half lies in the part, numbered from 1."""
    inside, whole = np.bincount(part.ravel(), minlength=int(mask.max()) + 1), np.bincount(mask.ravel())
    numbers = np.flatnonzero(2 * inside >= np.maximum(whole, 1))
    numbers = numbers[(numbers > 0) & (inside[numbers] > 0)]
    relabel = np.zeros(len(inside), np.int32)
    relabel[numbers] = np.arange(1, len(numbers) + 1)
    return relabel[part]


def _tile(grey: np.ndarray, mask: np.ndarray, y: int, x: int) -> View:
    window = (slice(y, y + _TILE), slice(x, x + _TILE))
    kept = _most_inside(mask[window], mask)
    scale = _SHOWN / _TILE
    boxes = tuple(tuple(c * scale for c in box) for box in boxes_of(kept))
    return image_view(
        resize(grey[window], (_SHOWN, _SHOWN)), "SM", key=f"tile_{y}_{x}", boxes={"nucleus": boxes},
        facts=Facts(counts={"nucleus": int(kept.max())}), how="instances at least half inside: mask2d",
    )  # fmt: skip


def _box_of_nuclei(image: np.ndarray, mask: np.ndarray, low: Sequence[int], high: Sequence[int]) -> View:
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    kept = _most_inside(mask[window], mask)
    volume = Volume(image[window].astype(np.float32), np.eye(4), "SM")
    size = (56, 56, volume.size[2])
    return volume_view(
        volume, {"nucleus": kept}, key="block_" + "_".join(map(str, low)), size_xyz=size, window="auto",
        facts=Facts(counts={"nucleus": int(kept.max())}), how="instances at least half inside: mask3d",
    )  # fmt: skip
