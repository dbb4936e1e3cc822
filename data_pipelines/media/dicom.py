"""DICOM file -> DicomImage: frames in physical units or RGB, with spacing, position, window and allowed facts.

| stored as                          | becomes                                                                 |
| MONOCHROME1 / 2, signed or not     | float32 after the modality LUT or slope and intercept (CT: Hounsfield)  |
| PALETTE COLOR, RGB, YBR, 8-32 bits | uint8 RGB                                                               |
| single, multi-frame, enhanced      | frames along the first axis, each with its own rescale, window, position |

Every compressed transfer syntax goes through pydicom and its decoders. Headers lie: the size is checked before the
pixels are read, a shorter stream than the header promises is an error, and no warning or message of a library is
passed on, since it may quote a patient's data. Overlays are dropped.
"""

import contextlib
import dataclasses
import io
import logging
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import generate_frames
from pydicom.filereader import read_dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder

from data_pipelines.media import MediaError, deidentify
from data_pipelines.media.apart import decode_apart
from data_pipelines.media.codestream import LOSSLESS_JPEG, stated
from data_pipelines.media.dicom_header import (
    Plane,
    Voi,
    functional_group,
    plane_of,
    rescale_of,
    show_values,
    spacing_of,
    thickness_of,
    voi_of,
)
from data_pipelines.media.volume import windowed

MAX_FILE_BYTES = 1 << 31
MAX_INFLATED_BYTES = 1 << 30
MAX_DECODED_BYTES = 1 << 32
_CHUNK = 1 << 20
_NOT_IMAGES = {"SEG": "a segmentation, not an image", "RTDOSE": "a dose map, not an image"}
_NEEDS_SPACING = ("CT", "MR", "PT")  # PixelSpacing is mandatory (type 1) in their image modules
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08", b"\x00\x02")  # a dataset that starts without preamble
_LOGGERS = ("pydicom", "openjpeg", "libjpeg", "pylibjpeg", "jpeg_ls")
# One decoder for a syntax, so that its pixels do not depend on what else is installed.
_PLUGINS = {
    **dict.fromkeys((uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit), "pillow"),
    **dict.fromkeys((uid.JPEGLSLossless, uid.JPEGLSNearLossless), "pyjpegls"),
    **dict.fromkeys((uid.JPEG2000Lossless, uid.JPEG2000), "pylibjpeg"),
    **dict.fromkeys((uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K), "pylibjpeg"),
    uid.RLELossless: "pydicom",
}
_APART = (uid.JPEGLossless, uid.JPEGLosslessSV1)  # by gdcm
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclasses.dataclass(frozen=True)
class DicomImage:
    """frames: float32 (t, h, w) in the modality's units, or uint8 (t, h, w, 3) RGB. spacing_mm: (x, y) or None.
    planes, vois: one per frame. thickness_mm: between slices as the header states it, or None. inverted: MONOCHROME1.
    burned_in: see deidentify. facts: what the header may say.

    patient (the study's UID where there is no id), series, instance and naming are for grouping and comparing only and
    never written.
    """

    frames: np.ndarray
    spacing_mm: tuple[float, float] | None
    modality: str
    inverted: bool
    planes: tuple[Plane | None, ...]
    vois: tuple[Voi, ...]
    thickness_mm: float | None
    burned_in: str
    facts: dict[str, str | float]
    patient: str
    series: str
    instance: str
    naming: frozenset[str]

    @property
    def is_rgb(self) -> bool:
        return self.frames.ndim == 4

    def render(self, window: str = "", frame: int = 0) -> np.ndarray:
        """uint8 (h, w) or (h, w, 3) of one frame, by a named preset or, without one, as the file asks."""
        values = self.frames[frame]
        if self.is_rgb:
            return values
        if window:
            return windowed(values, window, self.inverted)
        return show_values(values, self.vois[frame], self.inverted, self.facts.get("BitsStored") == 8)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what pydicom, gdcm and their plugins would log or warn about from reaching anyone; lenient reading."""
    loggers, settings = [logging.getLogger(name) for name in _LOGGERS], pydicom.config.settings
    levels, mode = [logger.level for logger in loggers], settings.reading_validation_mode
    try:
        import gdcm

        gdcm.Trace.WarningOff()
        gdcm.Trace.ErrorOff()
        gdcm.Trace.DebugOff()
    except ImportError:
        pass
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        settings.reading_validation_mode = pydicom.config.IGNORE
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        settings.reading_validation_mode = mode


def is_dicom(head: bytes) -> bool:
    """Whether the first 132 bytes of a file are a DICOM preamble and prefix."""
    return head[128:132] == b"DICM"


def read_header(source: Path | str | bytes, pixels: bool = True) -> pydicom.Dataset:
    """The dataset of a file (path, or its bytes). pixels=False stops before them. MediaError where it
    is no DICOM file; FileNotFoundError if absent."""
    with contextlib.ExitStack() as stack:
        file = io.BytesIO(source) if isinstance(source, bytes) else stack.enter_context(open(source, "rb"))
        if file.seek(0, io.SEEK_END) > MAX_FILE_BYTES:
            raise MediaError("file too large")
        file.seek(0)
        head = file.read(132)
        if not is_dicom(head):
            raise MediaError("no transfer syntax" if head[:2] in _FIRST_GROUPS else "not a DICOM file")
        file.seek(0)
        with quiet():
            try:
                _check_inflated(file)
                return pydicom.dcmread(file, stop_before_pixels=not pixels)
            except MediaError:
                raise
            except Exception:
                raise MediaError("damaged DICOM header") from None


def _transfer_syntax(file: IO[bytes], implicit: bool) -> str | None:
    """Read from the meta group; the file is left at the start of the dataset."""
    file.seek(132)
    meta = read_dataset(file, implicit, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    return meta.get("TransferSyntaxUID")


def _check_inflated(file: IO[bytes]) -> None:
    """Refuses a deflated dataset that would fill the memory, before pydicom inflates all of it at once."""
    try:
        syntax = _transfer_syntax(file, implicit=False)
    except NotImplementedError:  # some writers leave out the VRs of the meta group, which pydicom forgives
        syntax = _transfer_syntax(file, implicit=True)
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        stream, total, pending = zlib.decompressobj(-zlib.MAX_WBITS), 0, b""
        while total <= MAX_INFLATED_BYTES and not stream.eof:
            pending = pending or file.read(_CHUNK)
            if not pending:
                break
            total += len(stream.decompress(pending, _CHUNK))
            pending = stream.unconsumed_tail
        if total > MAX_INFLATED_BYTES:
            raise MediaError("deflated data too large")
    file.seek(0)


def read_patient(source: Path | str | bytes) -> str:
    """Identity of the patient of a file, see DicomImage.patient; "" where the header has none."""
    dataset = read_header(source, pixels=False)
    with quiet():
        try:
            return _patient(dataset)
        except Exception:
            raise MediaError("damaged DICOM header") from None


def read_dicom(source: Path | str | bytes) -> DicomImage:
    """The image of a file (path, or its bytes). MediaError names why it cannot be used."""
    dataset = read_header(source)
    with quiet():
        try:
            return _image(dataset)
        except MediaError:
            raise
        except Exception:  # an element of the wrong type surfaces wherever it is first used
            raise MediaError("damaged DICOM header") from None


def own_jpeg(source: Path | str | bytes) -> bytes | None:
    """The JPEG (baseline) that a file of one frame holds, as it is; None for any other file."""
    dataset = read_header(source)
    syntax = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    with quiet():
        try:
            if syntax != uid.JPEGBaseline8Bit or int(dataset.get("NumberOfFrames") or 1) != 1:
                return None
            return next(generate_frames(dataset.PixelData, number_of_frames=1))
        except Exception:  # what read_dicom names, if it is read at all
            return None


def _image(dataset: pydicom.Dataset) -> DicomImage:
    allowed = deidentify.facts(dataset)
    modality = str(allowed.get("Modality", ""))
    if modality in _NOT_IMAGES:
        raise MediaError(_NOT_IMAGES[modality])
    pixels, photometric = _decode(dataset)
    if photometric.startswith("MONOCHROME"):
        frames = np.stack([_to_units(frame, dataset, i) for i, frame in enumerate(pixels)])
    else:
        frames = _to_rgb(pixels, photometric, dataset)
    count = len(frames)
    spacing = spacing_of(dataset)
    if spacing is None and modality in _NEEDS_SPACING:
        raise MediaError(f"no pixel spacing ({modality})")
    return DicomImage(
        frames=frames,
        spacing_mm=spacing,
        modality=modality,
        inverted=photometric == "MONOCHROME1",
        planes=tuple(plane_of(dataset, i) for i in range(count)),
        vois=tuple(voi_of(dataset, i) for i in range(count)),
        thickness_mm=thickness_of(dataset),
        burned_in=deidentify.burned_in(dataset),
        facts=allowed,
        patient=_patient(dataset),
        series=str(dataset.get("SeriesInstanceUID") or ""),
        instance=str(dataset.get("SOPInstanceUID") or ""),
        naming=deidentify.naming_words(dataset),
    )


def _patient(dataset: pydicom.Dataset) -> str:
    issuer, number = (str(dataset.get(k) or "").strip() for k in ("IssuerOfPatientID", "PatientID"))
    return f"{issuer}\x1f{number}".strip("\x1f") if number else str(dataset.get("StudyInstanceUID") or "")


def _decode(dataset: pydicom.Dataset) -> tuple[np.ndarray, str]:
    """Stored values with frames first, (t, h, w) or (t, h, w, 3), and the photometric interpretation they are in."""
    syntax = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    if not syntax:
        raise MediaError("no transfer syntax")
    if not any(keyword in dataset for keyword in _PIXELS):
        raise MediaError("no pixel data")
    try:
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        count, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.get("SamplesPerPixel") or 1)
        size = rows * columns * max(count, 1) * samples * max(int(dataset.BitsAllocated) // 8, 1)
    except Exception:
        raise MediaError("damaged DICOM header") from None
    if min(rows, columns, count, samples) < 1:
        raise MediaError("empty image")
    if size > MAX_DECODED_BYTES:
        raise MediaError("image too large")
    try:
        decoder = get_decoder(syntax)
    except Exception:
        raise MediaError("unsupported transfer syntax") from None
    if not syntax.is_compressed and "PixelData" in dataset:
        stored = len(dataset.PixelData) * (1.5 if "422" in str(dataset.get("PhotometricInterpretation")) else 1)
        bits = rows * columns * count * samples * int(dataset.BitsAllocated)
        if stored * 8 < bits:
            raise MediaError("truncated pixel data")
    if syntax.is_encapsulated:
        _check_codestreams(dataset, count, (rows, columns, samples))
    try:
        if syntax in _APART:
            pixels, photometric = decode_apart(dataset)
        else:
            pixels, meta = decoder.as_array(dataset, decoding_plugin=_PLUGINS.get(syntax, ""))
            photometric = str(meta["photometric_interpretation"])
    except Exception:
        raise MediaError("undecodable pixel data") from None
    expected = (*([count] if count > 1 else []), rows, columns, *([samples] if samples > 1 else []))
    if pixels.shape != expected:
        raise MediaError("pixel data of another size than the header states")
    return pixels.reshape(count, *pixels.shape[1 if count > 1 else 0 :]), photometric


def _check_codestreams(dataset: pydicom.Dataset, count: int, shape: tuple[int, int, int]) -> None:
    """Refuses frames that state another (rows, columns, samples) than the header, or, where the syntax is lossless
    JPEG, something else than that."""
    lossless = dataset.file_meta.TransferSyntaxUID in _APART
    try:
        frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
    except Exception:
        raise MediaError("undecodable pixel data") from None
    for frame in frames:
        found = stated(frame)
        if found is not None and found[:3] != shape:
            raise MediaError("pixel data of another size than the header states")
        if lossless and (found is None or found.marker != LOSSLESS_JPEG):
            raise MediaError("undecodable pixel data")


def _to_units(frame: np.ndarray, dataset: pydicom.Dataset, index: int) -> np.ndarray:
    item = functional_group(dataset, index, "PixelValueTransformationSequence") or dataset
    if item.get("ModalityLUTSequence"):
        return apply_modality_lut(frame, item).astype(np.float32)
    slope, intercept = rescale_of(dataset, index)
    return frame.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _to_rgb(pixels: np.ndarray, photometric: str, dataset: pydicom.Dataset) -> np.ndarray:
    if photometric == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
        bits = 16 if pixels.dtype.itemsize > 1 and not _narrow_palette(dataset) else 8
    elif photometric == "RGB":
        bits = int(dataset.BitsStored)
    else:
        raise MediaError("unsupported colour space")
    if pixels.ndim != 4 or pixels.shape[3] != 3:
        raise MediaError("unsupported colour space")
    if bits > 8:
        pixels = pixels >> (bits - 8)
    elif bits < 8:
        pixels = pixels.astype(np.uint16) * 255 // ((1 << bits) - 1)
    return pixels.astype(np.uint8)


def _narrow_palette(dataset: pydicom.Dataset) -> bool:
    """Whether a table of 16-bit entries uses 8 bits of them, as some writers do."""
    tables = [dataset.get(f"{colour}PaletteColorLookupTableData") for colour in ("Red", "Green", "Blue")]
    return all(table is not None and np.frombuffer(table, "<u2").max(initial=0) < 256 for table in tables)
