"""A phantom's images as the files a hospital would send: DICOM of four kinds and NIfTI in any orientation.

| file                         | content                                                                           |
| CT series                    | one file a slice, names in no order, signed 16 bits                               |
| radiograph                   | 12 of 16 bits, MONOCHROME1 or 2, a VOI window                                     |
| PET                          | one enhanced multi-frame file, coronal, position and slope per frame              |
| ultrasound                   | 8 bits, spacing in an ultrasound region                                           |
| NIfTI                        | CT or labels, axes turned to the codes asked for                                  |

The headers carry made-up names and dates on purpose, so that a test can see that none of them goes any further.
"""

import dataclasses
import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from data_pipelines.media.volume import Volume, oriented
from data_pipelines.sources.phantom_images import Acquired

_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "PT": "1.2.840.10008.5.1.4.1.1.130",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
}
RADIOGRAPH_UNITS = 600  # stored values per unit of attenuation
PET_UNITS = 100  # stored values per unit of uptake
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a header would say about who was examined; none of it may reach a record."""

    seed: int
    index: int

    @property
    def number(self) -> str:
        return f"PHN{self.seed:04d}{self.index:07d}"

    @property
    def name(self) -> str:
        return f"Phantomsson^Number{self.index:07d}"

    def uid(self, *what: object) -> str:
        digest = hashlib.sha256("/".join(map(str, (self.seed, self.index, *what))).encode()).digest()
        return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def _dataset(identity: Identity, modality: str, series: str, instance: int, pixels: np.ndarray, bits: int) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = _CLASSES[modality]
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = identity.uid(series, instance)
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = identity.name, identity.number, "19010203"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = identity.uid("study"), identity.uid(series)
    ds.StudyDate, ds.Modality, ds.InstanceNumber = "20010203", modality, instance + 1
    ds.BurnedInAnnotation = "NO"
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    ds.BitsStored, ds.HighBit = bits, bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = np.ascontiguousarray(pixels).tobytes()
    return ds


def _save(ds: Dataset, path: Path) -> Path:
    ds.save_as(path, enforce_file_format=True)
    return path


def write_ct(identity: Identity, acquired: Acquired, folder: Path) -> Path:
    """One file a slice into `folder`, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    grid, depth = acquired.grid, len(acquired.values)
    ds = _dataset(identity, "CT", "ct", 0, acquired.values[0], 16)
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [_decimal(grid.step_mm[1]), _decimal(grid.step_mm[0])]
    ds.SliceThickness = _decimal(grid.step_mm[2])
    ds.RescaleIntercept, ds.RescaleSlope = -1024, 1
    for i in range(depth):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = identity.uid("ct", i)
        ds.InstanceNumber = depth - i
        x, y, z = grid.first_mm
        ds.ImagePositionPatient = [_decimal(x), _decimal(y), _decimal(z + i * grid.step_mm[2])]
        ds.PixelData = np.ascontiguousarray(acquired.values[i] + 1024).tobytes()
        _save(ds, folder / f"{identity.uid('file', i)[-12:]}.dcm")
    return folder


def write_radiograph(identity: Identity, acquired: Acquired, view: str, inverted: bool, path: Path) -> Path:
    """Frontal or lateral; inverted: MONOCHROME1, where low values are shown bright."""
    stored = np.clip(np.rint(acquired.values * RADIOGRAPH_UNITS), 0, 4095).astype(np.uint16)
    ds = _dataset(identity, "DX", path.stem, 0, 4095 - stored if inverted else stored, 12)
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    pixel = _decimal(acquired.grid.step_mm[2])
    ds.ImagerPixelSpacing = [pixel, pixel]
    ds.ViewPosition = "PA" if view == "frontal" else "LL"
    ds.BodyPartExamined = "CHEST"
    center, width = (3.1, 4.4) if view == "frontal" else (4.2, 5.4)
    center, width = center * RADIOGRAPH_UNITS, width * RADIOGRAPH_UNITS
    ds.WindowCenter, ds.WindowWidth = _decimal(4095 - center if inverted else center), _decimal(width)
    return _save(ds, path)


def write_pet(identity: Identity, acquired: Acquired, path: Path) -> Path:
    stored = np.clip(np.rint(acquired.values * PET_UNITS), 0, 65535).astype(np.uint16)
    ds = _dataset(identity, "PT", "pet", 0, stored, 16)
    ds.NumberOfFrames = len(stored)
    grid = acquired.grid
    measures, axes, slope = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [_decimal(grid.step_mm[2]), _decimal(grid.step_mm[0])]
    measures.SliceThickness = _decimal(grid.step_mm[1])
    axes.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    slope.RescaleIntercept, slope.RescaleSlope, slope.RescaleType = 0, 1 / PET_UNITS, "US"
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [axes]
    shared.PixelValueTransformationSequence = [slope]
    ds.SharedFunctionalGroupsSequence = [shared]
    frames = []
    x, y, z = grid.first_mm
    for i in range(len(stored)):
        position, frame = Dataset(), Dataset()
        top = z + (grid.size[2] - 1) * grid.step_mm[2]
        position.ImagePositionPatient = [_decimal(x), _decimal(y + i * grid.step_mm[1]), _decimal(top)]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = frames
    return _save(ds, path)


def write_ultrasound(identity: Identity, acquired: Acquired, path: Path) -> Path:
    ds = _dataset(identity, "US", "us", 0, acquired.values, 8)
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = (n - 1 for n in acquired.values.shape[::-1])
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = acquired.grid.step_mm[0] / 10
    ds.SequenceOfUltrasoundRegions = [region]
    return _save(ds, path)


def write_nifti(values_ZYX: np.ndarray, affine_lps: np.ndarray, codes: str, path: Path) -> Path:
    """Voxels with their axes turned to `codes` (LPS letters, such as "RAS"), uncompressed."""
    turned = oriented(Volume(values_ZYX, affine_lps), codes)
    image = nib.Nifti1Image(turned.voxels_ZYX.transpose(2, 1, 0), _LPS_TO_RAS @ turned.affine_lps)
    image.header.set_xyzt_units("mm")
    path.write_bytes(image.to_bytes())
    return path


def _decimal(value: float) -> str:
    """A DICOM decimal string: at most 16 characters."""
    return f"{value:.9g}"
