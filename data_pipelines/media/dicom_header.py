"""What a DICOM header says of a frame's place and of how its values are to be seen.

Read from the functional groups of an enhanced file where there are some, from the top level otherwise. What is absent,
empty or senseless comes back as None or an empty Voi; nothing is guessed.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import pydicom

from data_pipelines.media import MediaError
from data_pipelines.media.volume import AUTO, apply_window, window_range


@dataclasses.dataclass(frozen=True)
class Plane:
    """Where a frame lies: position_mm of the first pixel's centre and axes_mm (row direction, column direction) as
    unit vectors, all LPS."""

    position_mm: tuple[float, float, float]
    axes: tuple[tuple[float, float, float], tuple[float, float, float]]


def named_plane(plane: Plane | None) -> str:
    """axial, coronal or sagittal by a frame's orientation, or "" where it is unknown or more than 25 degrees off."""
    if plane is None:
        return ""
    normal = np.abs(np.cross(*plane.axes))
    return ("sagittal", "coronal", "axial")[int(normal.argmax())] if normal.max() > 0.9 else ""


@dataclasses.dataclass(frozen=True)
class Voi:
    """How the file wants grey values shown: the first window (center, width, function), or else a lookup table.
    padding: the value, in the modality's units, of pixels that show nothing."""

    window: tuple[float, float, str] | None = None
    padding: float | None = None
    lut: np.ndarray | None = None
    lut_first: int = 0


def functional_group(dataset: pydicom.Dataset, frame: int, sequence: str) -> pydicom.Dataset | None:
    """An enhanced multi-frame file's functional group of one frame, or the one shared by all."""
    for holder, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = dataset.get(holder)
        if items and index < len(items) and items[index].get(sequence):
            return items[index].get(sequence)[0]
    return None


def _numbers(dataset: pydicom.Dataset | None, keyword: str, count: int) -> tuple[float, ...] | None:
    value = dataset.get(keyword) if dataset is not None else None
    try:
        numbers = tuple(float(v) for v in value) if value is not None else ()
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def first_of(value: Any) -> Any:
    """The value, or the first of several."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
        return value
    return value[0] if len(value) else None


def rescale_of(dataset: pydicom.Dataset, frame: int) -> tuple[float, float]:
    """(slope, intercept) from stored values to the modality's units. MediaError where they are no numbers."""
    item = functional_group(dataset, frame, "PixelValueTransformationSequence") or dataset
    try:
        slope = float(first_of(item.get("RescaleSlope")) or 1.0)
        intercept = float(first_of(item.get("RescaleIntercept")) or 0.0)
    except (TypeError, ValueError):
        raise MediaError("damaged rescale slope or intercept") from None
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise MediaError("damaged rescale slope or intercept")
    return slope, intercept


def spacing_of(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    """(x, y) millimetres between pixel centres: in the patient, else at the detector, else of an ultrasound region."""
    measures = functional_group(dataset, 0, "PixelMeasuresSequence")
    for holder, keyword in (
        (measures, "PixelSpacing"),
        (dataset, "PixelSpacing"),
        (dataset, "ImagerPixelSpacing"),
        (dataset, "NominalScannedPixelSpacing"),
    ):
        rows_columns = _numbers(holder, keyword, 2)
        if rows_columns and min(rows_columns) > 0:
            return rows_columns[1], rows_columns[0]
    regions = dataset.get("SequenceOfUltrasoundRegions") or []
    if len(regions) == 1:  # with several, one scale does not hold for the whole picture
        region = regions[0]
        units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
        x, y = abs(float(region.get("PhysicalDeltaX") or 0)), abs(float(region.get("PhysicalDeltaY") or 0))
        if units == (3, 3) and min(x, y) > 0:  # 3: centimetres
            return x * 10, y * 10
    return None


def thickness_of(dataset: pydicom.Dataset) -> float | None:
    """Millimetres from slice to slice, or of a slice."""
    measures = functional_group(dataset, 0, "PixelMeasuresSequence")
    for holder in (measures, dataset):
        for keyword in ("SpacingBetweenSlices", "SliceThickness"):
            value = holder.get(keyword) if holder is not None else None
            if value is not None and abs(float(first_of(value) or 0)) > 0:
                return abs(float(first_of(value)))
    return None


def plane_of(dataset: pydicom.Dataset, frame: int) -> Plane | None:
    """Position and axes of a frame, or None where it has none or its axes are not at right angles."""
    position_item = functional_group(dataset, frame, "PlanePositionSequence") or dataset
    axes_item = functional_group(dataset, frame, "PlaneOrientationSequence") or dataset
    position = _numbers(position_item, "ImagePositionPatient", 3)
    axes = _numbers(axes_item, "ImageOrientationPatient", 6)
    if position is None or axes is None:
        return None
    row, column = np.array(axes[:3]), np.array(axes[3:])
    if min(np.linalg.norm(row), np.linalg.norm(column)) < 0.5 or abs(row @ column) > 0.05:
        return None
    row, column = row / np.linalg.norm(row), column / np.linalg.norm(column)
    return Plane(position, (tuple(row.tolist()), tuple(column.tolist())))  # type: ignore[arg-type]


def voi_of(dataset: pydicom.Dataset, frame: int) -> Voi:
    """The lookup table or the first window of a frame."""
    item = functional_group(dataset, frame, "FrameVOILUTSequence") or dataset
    tables = item.get("VOILUTSequence")
    if tables and tables[0].get("LUTDescriptor") is not None and tables[0].get("LUTData") is not None:
        return _lut(tables[0], bool(dataset.get("PixelRepresentation")))
    padding = _padding(dataset, frame)
    try:
        center, width = float(first_of(item.get("WindowCenter"))), float(first_of(item.get("WindowWidth")))
    except (TypeError, ValueError):
        return Voi(padding=padding)
    function = str(item.get("VOILUTFunction") or "LINEAR").strip().upper()
    usable = math.isfinite(center) and math.isfinite(width) and width > (1 if function == "LINEAR" else 0)
    return Voi((center, width, function) if usable else None, padding)


def _padding(dataset: pydicom.Dataset, frame: int) -> float | None:
    value = first_of(dataset.get("PixelPaddingValue"))
    if not isinstance(value, int):
        return None
    slope, intercept = rescale_of(dataset, frame)
    return value * slope + intercept


def _lut(table: pydicom.Dataset, signed: bool) -> Voi:
    count, first, bits = (int(v) for v in table.LUTDescriptor)
    data = table.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, "<u2" if len(data) >= 2 * (count or 65536) else "u1")
    values = np.asarray(data, np.float32)
    if signed and first >= 32768:
        first -= 65536
    if len(values) != (count or 65536) or not 1 <= bits <= 16:
        return Voi()
    return Voi(lut=values / float((1 << bits) - 1), lut_first=first)


def show_values(values: np.ndarray, voi: Voi, inverted: bool, is_8bit: bool) -> np.ndarray:
    """Grey values as the file asks (PS3.3 C.11.2.1.2); without a word from it, 8-bit values as they are, others by
    percentiles of what is not padding, which is black."""
    if voi.lut is not None:
        index = np.clip(values - voi.lut_first, 0, len(voi.lut) - 1).astype(int)
        return apply_window(voi.lut[index], 0.0, 1.0, inverted)
    if voi.window is not None:
        center, width, function = voi.window
        if function == "SIGMOID":
            shown = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -60, 60)))
            return apply_window(shown, 0.0, 1.0, inverted)
        if function == "LINEAR":
            center, width = center - 0.5, width - 1
        return apply_window(values, center - width / 2, center + width / 2, inverted)
    if is_8bit and values.min() >= 0 and values.max() <= 255:
        return apply_window(values, 0.0, 255.0, inverted)
    seen = values if voi.padding is None else values[values != voi.padding]
    low, high = window_range(seen if seen.size else values, AUTO)
    shown = apply_window(values, low, high, inverted)
    return shown if voi.padding is None else np.where(values == voi.padding, np.uint8(0), shown)
