"""DICOM pixels arrive in physical units, right way round, whatever the encoding; bad files give their reason."""

import logging
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import (
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from data_pipelines.media import MediaError
from data_pipelines.media.dicom import read_dicom, read_header
from tests.media.dicom_files import dataset, to_bytes, write

CT = np.random.default_rng(0).integers(-1024, 1500, (96, 80)).astype(np.int16)


def bundled(name: str) -> str:
    """A file that pydicom ships; nothing is downloaded."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return path


def test_rescale_gives_hounsfield_units():
    image = read_dicom(write((CT + 1024).astype(np.uint16), RescaleSlope=1, RescaleIntercept=-1024))
    np.testing.assert_array_equal(image.frames[0], CT)
    assert (image.spacing_mm, image.modality) == ((0.7, 0.5), "CT")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("kind", ["signed", "unsigned", "rgb"])
def test_lossless_encodings_of_one_image_agree(syntax, kind):
    pixels = {"signed": CT, "unsigned": (CT + 1024).astype(np.uint16)}.get(kind)
    if pixels is None:
        pixels = np.random.default_rng(1).integers(0, 256, (96, 80, 3)).astype(np.uint8)
    plain = dataset(pixels)
    expected = read_dicom(to_bytes(plain)).frames
    if syntax == ImplicitVRLittleEndian:
        plain.file_meta.TransferSyntaxUID = syntax
    else:
        plain.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(read_dicom(to_bytes(plain)).frames, expected)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_expb.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_the_bundled_mr_slice_is_the_same_in_every_encoding(name):
    expected = read_dicom(bundled("MR_small.dcm"))
    image = read_dicom(bundled(name))
    np.testing.assert_array_equal(image.frames, expected.frames)
    np.testing.assert_array_equal(image.render(), expected.render())
    assert image.planes == expected.planes


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("SC_rgb_rle.dcm", 0),
        ("SC_rgb_rle_16bit.dcm", 0),
        ("SC_rgb_rle_32bit.dcm", 0),
        ("SC_rgb_jpeg_gdcm.dcm", 0),
        ("SC_ybr_full_422_uncompressed.dcm", 130),
        ("SC_rgb_dcmtk_+eb+cy+np.dcm", 3),
        ("SC_rgb_dcmtk_+eb+cy+n1.dcm", 3),
        ("SC_rgb_jpeg_dcmtk.dcm", 3),
        ("SC_rgb_gdcm_KY.dcm", 3),
        ("SC_rgb_jls_lossy_line.dcm", 3),
        ("SC_rgb_jls_lossy_sample.dcm", 3),
    ],
)
def test_colour_images_arrive_as_rgb(name, tolerance):
    image = read_dicom(bundled(name))
    assert image.is_rgb
    # ten-pixel stripes: red, green, blue, ..., black, white
    centres = image.frames[0, 5:100:10, 50].astype(int)
    assert np.abs(centres[0] - (255, 0, 0)).max() <= tolerance
    assert np.abs(centres[-1] - 255).max() <= tolerance


def test_monochrome1_is_shown_inverted_and_measured_as_it_is():
    plain = read_dicom(write(CT))
    inverted = read_dicom(write(CT, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(inverted.frames, plain.frames)
    np.testing.assert_array_equal(inverted.render("lung"), 255 - plain.render("lung"))
    np.testing.assert_array_equal(inverted.render(), 255 - plain.render())


def test_the_first_of_several_windows_is_used():
    one = read_dicom(write(CT, WindowCenter=40, WindowWidth=400))
    several = read_dicom(write(CT, WindowCenter=[40, -600], WindowWidth=[400, 1500]))
    np.testing.assert_array_equal(one.render(), several.render())
    assert (one.render() != read_dicom(write(CT)).render()).any()


def test_the_linear_window_follows_the_standards_half_unit():
    ramp = np.arange(0, 101, dtype=np.int16).reshape(1, -1)
    shown = read_dicom(write(ramp, WindowCenter=50, WindowWidth=100, VOILUTFunction="LINEAR")).render()[0]
    # PS3.3 C.11.2.1.2.1: x <= c - 0.5 - (w-1)/2 is black, x > c - 0.5 + (w-1)/2 is white
    assert (shown[0], shown[1], shown[99]) == (0, round(255 / 99), 255)
    exact = read_dicom(write(ramp, WindowCenter=50, WindowWidth=100, VOILUTFunction="LINEAR_EXACT")).render()[0]
    assert (exact[0], exact[50], exact[100]) == (0, 128, 255)


def test_a_window_without_width_falls_back_to_percentiles():
    np.testing.assert_array_equal(
        read_dicom(write(CT, WindowCenter=40, WindowWidth=0)).render(), read_dicom(write(CT)).render()
    )


def test_padding_is_black_and_does_not_stretch_the_window():
    pixels = CT.copy()
    pixels[:40] = -30000
    shown = read_dicom(write(pixels, PixelPaddingValue=-30000)).render()
    assert (shown[:40] == 0).all()
    np.testing.assert_array_equal(shown[40:], read_dicom(write(CT[40:])).render())


def test_a_lookup_table_is_followed():
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "SS", [3, -1, 16])
    table.add_new("LUTData", "US", [0, 65535, 32768])
    pixels = np.array([[-5, -1, 0, 1, 9]], np.int16)
    shown = read_dicom(write(pixels, VOILUTSequence=[table])).render()
    assert shown[0].tolist() == [0, 0, 255, 128, 128]


def test_every_frame_of_a_multi_frame_file_arrives():
    frames = np.stack([CT, CT + 1, CT + 2])
    image = read_dicom(write(frames))
    np.testing.assert_array_equal(image.frames, frames)
    assert len(image.planes) == len(image.vois) == 3


def test_a_palette_becomes_rgb():
    image = read_dicom(bundled("examples_palette.dcm"))
    assert image.frames.shape == (1, 350, 800, 3)
    assert image.frames.std() > 10


def test_bits_above_those_stored_do_not_change_the_picture():
    pixels = (CT + 1024).astype(np.uint16) & 0x0FFF
    clean = read_dicom(write(pixels, BitsStored=12, HighBit=11))
    dirty = read_dicom(write(pixels | 0xF000, BitsStored=12, HighBit=11))
    np.testing.assert_array_equal(dirty.frames, clean.frames)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("MR_truncated.dcm", "truncated pixel data"),
        ("badVR.dcm", "a dose map, not an image"),
        ("JPEG-lossy.dcm", "undecodable pixel data"),
        ("JPEG2000-embedded-sequence-delimiter.dcm", "pixel data of another size than the header states"),
        ("meta_missing_tsyntax.dcm", "no transfer syntax"),
        ("ExplVR_LitEndNoMeta.dcm", "no transfer syntax"),
        ("rtplan.dcm", "no pixel data"),
        ("rtdose.dcm", "a dose map, not an image"),
        ("liver_1frame.dcm", "a segmentation, not an image"),
        ("README.txt", "not a DICOM file"),
    ],
)
def test_known_bad_files_are_refused_with_their_reason(name, reason):
    with pytest.raises(MediaError) as caught:
        read_dicom(bundled(name))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (write(CT, PixelSpacing=None), "no pixel spacing (CT)"),
        (write(CT, PixelSpacing=[0, 0]), "no pixel spacing (CT)"),
        (write(CT, PixelData=None), "no pixel data"),
        (write(CT, Rows=20000, Columns=30000, NumberOfFrames=99), "image too large"),
        (write(CT, Rows=97), "truncated pixel data"),
        (write(CT, Rows=0), "empty image"),
        (write(CT, RescaleSlope="1e999", RescaleIntercept=0), "damaged rescale slope or intercept"),
        (write(CT)[:500], "no pixel data"),
        (b"", "not a DICOM file"),
    ],
)
def test_damaged_files_are_refused_with_their_reason(data, reason):
    with pytest.raises(MediaError) as caught:
        read_dicom(data)
    assert caught.value.reason == reason


def test_a_radiograph_without_spacing_is_still_an_image():
    assert read_dicom(write(CT, Modality="CR", PixelSpacing=None)).spacing_mm is None


def test_no_file_that_pydicom_ships_makes_the_reader_crash(caplog, recwarn, capfd):
    folder = Path(bundled("MR_small.dcm")).parent
    good, reasons = 0, []
    with caplog.at_level(logging.DEBUG):
        for path in sorted(p for p in folder.iterdir() if p.is_file()):
            try:
                assert read_dicom(path).render().dtype == np.uint8
                good += 1
            except MediaError as error:
                reasons.append(error.reason)
    assert good >= 45
    assert len(reasons) >= 20
    assert max(map(len, reasons)) < 80
    assert not caplog.records  # a library's message may quote a patient's data
    assert not recwarn.list


def test_any_prefix_of_a_file_is_read_or_refused():
    data = write(CT)
    for end in range(0, len(data), 37):
        with pytest.raises(MediaError):
            read_dicom(data[:end])


def test_lossless_jpeg_with_a_damaged_header_is_refused_before_gdcm_ends_the_process():
    data = Path(bundled("SC_rgb_jpeg_gdcm.dcm")).read_bytes()
    start = data.index(b"\xff\xd8\xff\xee")
    for marker in (b"\xff\xc4", b"\xff\xc3", b"\xff\xda"):
        at = data.index(marker, start)
        with pytest.raises(MediaError):
            read_dicom(data[:at] + b"\xbc" + data[at + 1 :])


@pytest.mark.parametrize("name", ["CT_small.dcm", "SC_rgb_jpeg_gdcm.dcm", "MR_small_RLE.dcm", "SC_rgb_jpeg_dcmtk.dcm"])
def test_a_file_with_damaged_bytes_is_read_or_refused(name):
    data, rng = Path(bundled(name)).read_bytes(), np.random.default_rng(0)
    outcomes = set()
    for _ in range(60):
        damaged = bytearray(data)
        for at in rng.integers(0, 2500, 4):
            damaged[at] = rng.integers(256)
        try:
            outcomes.add(read_dicom(bytes(damaged)).render().dtype)
        except MediaError as error:
            outcomes.add(error.reason)
    assert len(outcomes) > 1


def deflated(pixels) -> bytes:
    made = dataset(pixels)
    made.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    return to_bytes(made)


def test_a_small_deflated_file_does_not_fill_the_memory(monkeypatch):
    data = deflated(np.zeros((2000, 2000), np.int16))
    assert len(data) < 20_000
    assert read_dicom(data).frames.shape == (1, 2000, 2000)
    inflated = len(to_bytes(dataset(np.zeros((2000, 2000), np.int16))))
    monkeypatch.setattr("data_pipelines.media.dicom.MAX_INFLATED_BYTES", inflated - 500)
    monkeypatch.setattr(pydicom, "dcmread", lambda *_, **__: pytest.fail("inflated before it was refused"))
    for pixels in (True, False):
        with pytest.raises(MediaError) as caught:
            read_header(data, pixels)
        assert caught.value.reason == "deflated data too large"


def test_a_deflated_file_that_is_cut_short_is_damaged():
    data = deflated(np.random.default_rng(0).integers(0, 999, (64, 64)).astype(np.int16))
    with pytest.raises(MediaError):
        read_dicom(data[:-1000])
