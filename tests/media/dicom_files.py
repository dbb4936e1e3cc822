"""Writes small DICOM files for tests: one image, or a series of slices, with every attribute under control."""

import io
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SERIES = "1.2.826.0.1.3680043.8.498.1"


def dataset(pixels: np.ndarray, **attributes: Any) -> FileDataset:
    """A CT image of (h, w) or multi-frame (t, h, w) integers, or RGB (h, w, 3) uint8.

    attributes override what is written by default; None removes one."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    rgb = pixels.ndim == 3 and pixels.shape[-1] == 3 and pixels.dtype == np.uint8
    if pixels.ndim == 3 and not rgb:
        ds.NumberOfFrames = len(pixels)
    ds.Rows, ds.Columns = pixels.shape[:2] if rgb else pixels.shape[-2:]
    bits = pixels.dtype.itemsize * 8
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.SamplesPerPixel = 3 if rgb else 1
    if rgb:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = "RGB" if rgb else "MONOCHROME2"
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = SERIES + ".1", SERIES + ".2"
    ds.Modality, ds.PatientName, ds.PatientID = "CT", "Wanda^Wiktoria", "PATIENT-4711"
    ds.PixelSpacing = [0.5, 0.7]
    ds.PixelData = pixels.tobytes()
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def to_bytes(ds: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write(pixels: np.ndarray, **attributes: Any) -> bytes:
    return to_bytes(dataset(pixels, **attributes))


def series(
    voxels_ZYX: np.ndarray, step: float = 2.0, axes: tuple = (1, 0, 0, 0, 1, 0), **attributes: Any
) -> list[bytes]:
    """One file a slice, along the normal of `axes`, from the origin."""
    normal = np.cross(axes[:3], axes[3:])
    return [
        write(
            plane,
            **{
                "ImageOrientationPatient": list(axes),
                "ImagePositionPatient": (normal * step * i).tolist(),
                **attributes,
            },
        )
        for i, plane in enumerate(voxels_ZYX)
    ]
