"""One image, written in each of the thirteen transfer syntaxes, arrives with the same pixels."""

import io

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread, dcmwrite, uid
from pydicom.encaps import encapsulate

from data_pipelines.media import MediaError
from data_pipelines.media.dicom import read_dicom
from tests.media.dicom_files import dataset, to_bytes

ROWS, COLUMNS = np.mgrid[:96, :80]
SMOOTH = ((np.sin(ROWS / 9) + np.cos(COLUMNS / 7)) * 60 + 127).astype(
    np.uint8
)  # lossy coders keep it within a few units
NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian,
          uid.DeflatedExplicitVRLittleEndian)  # fmt: skip
ENCODED = (uid.RLELossless, uid.JPEG2000Lossless, uid.JPEG2000, uid.JPEGLSLossless, uid.JPEGLSNearLossless)
JPEG_LOSSY = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
JPEG_LOSSLESS = (uid.JPEGLossless, uid.JPEGLosslessSV1)
LOSSY = (*JPEG_LOSSY, uid.JPEG2000, uid.JPEGLSNearLossless)


def written(syntax: uid.UID, tmp_path) -> bytes:
    if syntax in JPEG_LOSSLESS:
        return _by_gdcm(syntax, tmp_path)
    ds = dataset(SMOOTH)
    if syntax in ENCODED:
        options = {uid.JPEG2000: {"j2k_psnr": [60]}, uid.JPEGLSNearLossless: {"jls_error": 2}}.get(syntax, {})
        ds.compress(syntax, generate_instance_uid=False, **options)
    elif syntax in JPEG_LOSSY:
        buffer = io.BytesIO()
        Image.fromarray(SMOOTH).save(buffer, "JPEG", quality=97)
        ds.PixelData = encapsulate([buffer.getvalue()])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == uid.ExplicitVRBigEndian:
        ds["PixelData"].VR = "OB"  # as OW, bytes would stand swapped in 16-bit words
        buffer = io.BytesIO()
        dcmwrite(buffer, ds, implicit_vr=False, little_endian=False, force_encoding=True)
        return buffer.getvalue()
    return to_bytes(ds)


def _by_gdcm(syntax: uid.UID, tmp_path) -> bytes:
    gdcm = pytest.importorskip("gdcm")
    path = tmp_path / "plain.dcm"
    path.write_bytes(to_bytes(dataset(SMOOTH)))
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(tmp_path / "changed.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return (tmp_path / "changed.dcm").read_bytes()


@pytest.mark.parametrize("syntax", [*NATIVE, *ENCODED, *JPEG_LOSSY, *JPEG_LOSSLESS], ids=lambda s: s.name[:36])
def test_the_pixels_are_the_same_in_every_transfer_syntax(syntax, tmp_path):
    data = written(syntax, tmp_path)
    assert str(syntax).encode() + b"\0" * (len(syntax) % 2) in data[:1000]
    frame = read_dicom(data).frames[0]
    assert np.abs(frame - SMOOTH).max() <= (6 if syntax in LOSSY else 0)


def test_there_are_thirteen():
    assert len({*NATIVE, *ENCODED, *JPEG_LOSSY, *JPEG_LOSSLESS}) == 13


@pytest.mark.parametrize("syntax", [*ENCODED[1:], *JPEG_LOSSY, *JPEG_LOSSLESS], ids=lambda s: s.name[:36])
def test_a_codestream_of_another_size_than_the_header_is_refused_before_it_is_decoded(syntax, tmp_path, monkeypatch):
    ds = dcmread(io.BytesIO(written(syntax, tmp_path)))
    ds.Rows = 10
    monkeypatch.setattr(
        "data_pipelines.media.dicom.get_decoder", lambda _: None
    )  # would fail if it were asked to decode
    with pytest.raises(MediaError, match="pixel data of another size than the header states"):
        read_dicom(to_bytes(ds))
