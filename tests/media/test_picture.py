"""A published picture keeps its own compressed bytes and loses what else its file says."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from data_pipelines.media import MediaError
from data_pipelines.media.picture import picture
from data_pipelines.media.raster import decode, encode_png, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)


def saved(kind: str, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def named() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E] = "DOE^JANE"  # image description
    return exif


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def labelled() -> PngInfo:
    info = PngInfo()
    info.add_text("Comment", "DOE^JANE")
    return info


@pytest.mark.parametrize("data", [saved("JPEG"), saved("JPEG", "L"), saved("JPEG", progressive=True), saved("PNG")])
def test_a_plain_file_keeps_its_bytes(data):
    assert picture(data, "OT").frames == (data,)


@pytest.mark.parametrize(
    ("data", "bare"),
    [
        (saved("JPEG", exif=named(), comment=b"DOE^JANE", icc_profile=b"DOE^JANE"), saved("JPEG")),
        (saved("JPEG", progressive=True, exif=named()), saved("JPEG", progressive=True)),
        (saved("PNG", pnginfo=labelled(), exif=named()), saved("PNG")),
    ],
)
def test_what_a_file_says_beside_its_pixels_is_cut_out(data, bare):
    assert b"DOE^JANE" in data
    assert picture(data, "OT").frames == (bare,)


@pytest.mark.parametrize(
    "data",
    [
        saved("JPEG", "CMYK"),
        saved("PNG", "RGBA"),
        saved("PNG", "P"),
        saved("TIFF"),
        saved("JPEG", exif=turned()),
        saved("JPEG") + b"DOE^JANE\xff\xd9",
    ],
)
def test_other_files_become_a_png_of_what_is_shown(data):
    media = picture(data, "XC")
    shown = read_image(data)
    assert media.frames == (encode_png(shown),)
    assert (decode(media.frames[0]) == shown).all()
    assert media.size == shown.shape[1::-1]
    assert media.modality == "XC"


def test_a_file_cut_short_is_refused():
    with pytest.raises(MediaError, match="truncated or damaged image"):
        picture(saved("JPEG")[:-60], "OT")
