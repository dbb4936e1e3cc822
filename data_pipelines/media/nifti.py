"""NIfTI (.nii, .nii.gz, by content) -> Volume in the orientation its affine gives; masks keep their integers.

A NIfTI affine is in RAS millimetres; it becomes LPS here and nowhere else. A file whose header states no orientation
(qform and sform codes both 0) is refused: left and right would be a guess.
"""

import gzip
import io
import warnings
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np

from data_pipelines.media import MediaError
from data_pipelines.media.volume import MAX_VOXELS, Volume, check_affine

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MAX_BYTES = 1 << 33
_GZIP = b"\x1f\x8b"


def is_nifti(head: bytes) -> bool:
    """Whether the first 540 bytes of a file (or of what gzip holds) are a NIfTI header."""
    if head[:2] == _GZIP:
        try:
            head = zlib.decompressobj(31).decompress(head, 540)
        except zlib.error:
            return False
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] == b"n+2\0"


def read_nifti(source: Path | str | bytes, modality: str = "", mask: bool = False) -> Volume:
    """The volume of a file (path, or its bytes), axes as stored (see volume.canonical). `mask` keeps integer labels
    exact; otherwise slope and intercept are applied and voxels are int16 where exact, float32 elsewhere. Non-finite
    voxels become the smallest finite one. MediaError where there is no usable 3D volume."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = _load(source)
            affine_lps = check_affine(_RAS_TO_LPS @ _affine_ras(image))
            voxels_xyz = _voxels(image, mask)
        except (MediaError, FileNotFoundError):
            raise
        except Exception:  # nibabel, zlib and numpy each name a damaged file differently
            raise MediaError("truncated or damaged NIfTI file") from None
    return Volume(np.ascontiguousarray(voxels_xyz.transpose(2, 1, 0)), affine_lps, modality)


def _load(source: Path | str | bytes) -> nib.Nifti1Image:
    if not isinstance(source, bytes):
        with open(source, "rb") as file:
            head = file.read(4096)
            if not is_nifti(head):
                raise MediaError("not a NIfTI file")
            source = head + file.read(_MAX_BYTES)
    elif not is_nifti(source[:4096]):
        raise MediaError("not a NIfTI file")
    if source[:2] == _GZIP:
        with gzip.GzipFile(fileobj=io.BytesIO(source)) as packed:
            source = packed.read(_MAX_BYTES)
    kind = nib.Nifti2Image if source[4:8] == b"n+2\0" else nib.Nifti1Image
    if source[344:348] == b"ni1\0":
        raise MediaError("NIfTI header without its voxels (.hdr)")
    image = kind.from_bytes(source)
    shape = [int(n) for n in image.shape]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) != 3 or min(shape) < 1:
        raise MediaError(f"not a 3D volume ({len(shape)} axes)")
    if np.prod(shape, dtype=np.int64) > MAX_VOXELS:
        raise MediaError("volume too large")
    return image


def _affine_ras(image: nib.Nifti1Image) -> np.ndarray:
    header = image.header
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        raise MediaError("no orientation (qform and sform codes are 0)")
    return np.asarray(image.affine, float)


def _voxels(image: nib.Nifti1Image, mask: bool) -> np.ndarray:
    raw = np.asanyarray(image.dataobj.get_unscaled())
    raw = raw.reshape(raw.shape[:3])
    if raw.dtype.names or raw.dtype.kind == "c":
        raise MediaError("unsupported NIfTI data type")
    slope, inter = float(image.dataobj.slope), float(image.dataobj.inter)  # the header's own are reset on loading
    if mask:
        values = raw if slope == 1 and inter == 0 else np.rint(raw * slope + inter)
        if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
            raise MediaError("mask holds fractions")
        return values.astype(np.int32)
    if raw.dtype.kind in "iub" and slope == 1 and inter == 0 and raw.min() >= -32768 and raw.max() <= 32767:
        return raw.astype(np.int16)
    values = raw.astype(np.float32)
    if (slope, inter) != (1.0, 0.0):
        values = values * np.float32(slope) + np.float32(inter)
    finite = np.isfinite(values)
    if not finite.any():
        raise MediaError("no finite voxel")
    if not finite.all():
        values = np.where(finite, values, values[finite].min())
    if np.array_equal(values, np.rint(values)) and values.min() >= -32768 and values.max() <= 32767:
        return values.astype(np.int16)
    return values
