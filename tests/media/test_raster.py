"""A picture file gives the pixels that transformers would give, and a bad one its reason."""

import io
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_pipelines.media import MediaError, raster
from data_pipelines.media.raster import decode, encode_png, load, planes, read_image, shrink

GREY = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (20, 30, 3)).astype(np.uint8)


def _saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    return _saved(Image.fromarray(RGB), "JPEG", exif=exif)


def _tiff16() -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, GREY.astype(np.uint16) * 100)
    return buffer.getvalue()


FILES = {
    "rgb.png": _saved(Image.fromarray(RGB), "PNG"),
    "grey.png": _saved(Image.fromarray(GREY), "PNG"),
    "rgba.png": _saved(Image.fromarray(RGB).convert("RGBA"), "PNG"),
    "palette.png": _saved(Image.fromarray(RGB).quantize(16), "PNG"),
    "grey16.png": _saved(Image.fromarray(GREY.astype(np.uint16) * 100), "PNG"),
    "turned.jpg": _turned(),
    "cmyk.jpg": _saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "cmyk.tif": _saved(Image.fromarray(RGB).convert("CMYK"), "TIFF"),
    "grey16.tif": _tiff16(),
    "bilevel.tif": _saved(Image.fromarray(GREY > 128), "TIFF"),
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_that_transformers_reads(name, tmp_path):
    image_utils = pytest.importorskip("transformers.image_utils")
    path = tmp_path / name
    path.write_bytes(FILES[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.asarray(image_utils.load_image(str(path)))
    np.testing.assert_array_equal(read_image(path), expected)


def test_exif_orientation_turns_the_picture():
    assert read_image(FILES["turned.jpg"]).shape == (30, 20, 3)


def test_a_turned_tiff_is_the_same_picture_from_a_path_and_from_its_bytes(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = _saved(Image.fromarray(GREY), "TIFF", exif=exif)
    (tmp_path / "turned.tif").write_bytes(data)
    expected = np.rot90(GREY, -1)[..., None].repeat(3, axis=2)
    np.testing.assert_array_equal(read_image(data), expected)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.tif"), expected)


def test_an_uncompressed_tiff_in_ycbcr_is_read_by_every_pillow():
    """Pillow before 13 refuses to."""
    values, exif = Image.fromarray(RGB).convert("YCbCr"), Image.Exif()
    expected = np.asarray(values.convert("RGB"))
    np.testing.assert_array_equal(read_image(_saved(values, "TIFF")), expected)
    exif[0x0112] = 6
    np.testing.assert_array_equal(read_image(_saved(values, "TIFF", exif=exif)), np.rot90(expected, -1))
    with pytest.raises(MediaError, match="truncated"):
        read_image(_saved(values, "TIFF")[:-100])


def test_a_picture_of_sixteen_bits_is_clipped_and_said_to_be_once(caplog):
    raster._warn_of_clipping.cache_clear()
    assert read_image(FILES["grey16.png"]).max() == 255
    read_image(FILES["grey16.tif"])
    read_image(FILES["rgb.png"])
    assert [record.message[:50] for record in caplog.records] == ["a picture has more than 8 bits a pixel: what is br"]


def test_a_transparent_colour_becomes_white_and_alpha_is_dropped():
    keyed = Image.fromarray(np.array([[7, 200]], np.uint8))
    assert read_image(_saved(keyed, "PNG", transparency=7))[0, :, 0].tolist() == [255, 200]
    alpha = Image.fromarray(np.array([[[9, 9, 9, 0], [200, 200, 200, 255]]], np.uint8), "RGBA")
    assert read_image(_saved(alpha, "PNG"))[0, :, 0].tolist() == [9, 200]


@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "rgb"])
def test_png_round_trip_is_exact(pixels):
    expected = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode(encode_png(pixels)), expected)


def test_encoding_refuses_what_is_not_eight_bit():
    with pytest.raises(ValueError, match="expected uint8"):
        encode_png(GREY.astype(np.uint16))


def _bomb() -> bytes:
    """A PNG whose header promises 2**40 pixels."""
    data = FILES["rgb.png"]
    header = b"IHDR" + (1 << 20).to_bytes(4, "big") * 2 + data[24:29]
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a PNG, JPEG, TIFF or BMP image"),
        (b"GIF89a" + bytes(100), "not a PNG, JPEG, TIFF or BMP image"),
        (FILES["rgb.png"][:300], "truncated or damaged image"),
        (FILES["turned.jpg"][:-200], "truncated or damaged image"),
        (_bomb(), "image too large"),
    ],
)
def test_a_bad_picture_is_refused_with_its_reason(data, reason):
    with pytest.raises(MediaError) as caught:
        read_image(data)
    assert caught.value.reason == reason


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_image(tmp_path / "nowhere.png")


def test_shrinking_keeps_proportions_and_never_enlarges():
    assert shrink(RGB, 15).shape == (10, 15, 3)
    assert shrink(RGB, 100) is RGB


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size_wh", [(56, 28), (84, 112), (60, 40)])
def test_resized_planes_are_those_of_pillow_s_rgb(mode, size_wh):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60) if mode == "L" else (40, 60, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).convert("RGB").resize(size_wh, Image.Resampling.BICUBIC))
    image = load(encode_png(pixels))
    assert image.mode == mode
    np.testing.assert_array_equal(np.stack(planes(image, size_wh), -1), expected)
