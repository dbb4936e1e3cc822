"""Our resize gives the pixels of the installed Pillow's, whichever order its passes have, and leaves it to Pillow where
it cannot."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines.media import resample
from data_pipelines.media.resample import bands, bicubic

BICUBIC = Image.Resampling.BICUBIC
PILLOW = Image.Image.resize
sides = st.integers(1, 900) | st.integers(1, 12)
modes = st.sampled_from(["RGB", "L"])


def _picture(width, height, mode, seed=0, smooth=False):
    random = np.random.default_rng(seed)
    if smooth:
        y, x = np.mgrid[:height, :width, :1][:2] / max(height, width)
        pixels = 127.5 + 127.5 * np.sin(x * [5, 3, 8] + y * [2, 9, 4] + seed)
    else:  # much of it black or white, where sums leave 0-255
        pixels = random.integers(-128, 384, (height, width, 3)).clip(0, 255)
    pixels = pixels.astype(np.uint8)
    return Image.fromarray(pixels if mode == "RGB" else np.ascontiguousarray(pixels[..., 0]))


def _assert_is_pillow_s(image, size_wh):
    for ours, wanted in zip(bicubic(image, size_wh), bands(image.resize(size_wh, BICUBIC)), strict=True):
        np.testing.assert_array_equal(ours, wanted)


@pytest.fixture
def fresh():
    """What a process has found out about numba and Pillow is forgotten, before the test and after it."""
    found_out = resample._passes, resample._order, resample._weights
    for function in found_out:
        function.cache_clear()
    yield
    for function in found_out:
        function.cache_clear()


def test_numba_and_the_installed_pillow_s_order_are_used():
    assert resample._passes() is not None
    assert [resample._order(mode) for mode in ("RGB", "L")] == [resample._order("RGB")] * 2 != [None] * 2


@settings(max_examples=80, deadline=None)
@given(sides, sides, sides, sides, modes, st.integers(0, 9), st.booleans())
@example(1, 1, 900, 900, "RGB", 0, False)
@example(900, 900, 1, 1, "RGB", 0, False)
@example(1, 900, 900, 1, "RGB", 0, False)
@example(900, 1, 1, 900, "L", 0, False)
@example(640, 480, 640, 480, "RGB", 0, False)
@example(7, 746, 810, 322, "RGB", 0, False)
@example(746, 7, 322, 810, "L", 0, False)
def test_any_size_becomes_any_other_as_in_pillow(width, height, to_width, to_height, mode, seed, smooth):
    _assert_is_pillow_s(_picture(width, height, mode, seed, smooth), (to_width, to_height))


@settings(max_examples=60, deadline=None)
@given(st.integers(30, 900), st.integers(30, 900), st.integers(-20, 20), st.integers(-40, 40), modes)
@example(500, 400, 0, 0, "RGB")
@example(500, 400, 0, -7, "RGB")
@example(500, 400, -7, 0, "RGB")
def test_sizes_change_a_little_as_in_pillow(width, height, wider, higher, mode):
    """What rounding to multiples of 28 does, on both sides of the limit where Pillow 13 takes the rows first."""
    _assert_is_pillow_s(_picture(width, height, mode), (width + wider, max(height + higher, 1)))


def _columns_first(image, size_wh):
    return PILLOW(PILLOW(image, (size_wh[0], image.height), BICUBIC), size_wh, BICUBIC)


def _rows_first(image, size_wh):
    return PILLOW(PILLOW(image, (image.width, size_wh[1]), BICUBIC), size_wh, BICUBIC)


def _as_pillow_12_3(image, size_wh):
    rows = image.height > 100 * image.width and size_wh[1] < image.height
    return (_rows_first if rows else _columns_first)(image, size_wh)


def _as_pillow_13(image, size_wh):
    rows = image.height - size_wh[1] > max(0, 2 * (image.width - size_wh[0]))
    return (_rows_first if rows else _columns_first)(image, size_wh)


def _nearest(image, size_wh):
    return PILLOW(image, size_wh, Image.Resampling.NEAREST)


def _replace_pillow_s(monkeypatch, resize):
    """Of pictures; the weights still come from the installed Pillow."""

    def resized(image, size_wh, *options):
        return resize(image, size_wh) if image.mode in ("RGB", "L") else PILLOW(image, size_wh, *options)

    monkeypatch.setattr(Image.Image, "resize", resized)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("order", "resize"),
    [("never", _columns_first), ("very tall", _as_pillow_12_3), ("height falls more", _as_pillow_13)],
)
def test_each_order_of_passes_is_recognised(fresh, monkeypatch, caplog, order, resize, mode):
    _replace_pillow_s(monkeypatch, resize)
    assert resample._order(mode) is resample._ORDERS[order]
    for size_wh in ((84, 56), (112, 84), (140, 28), (28, 112), (94, 124), (99, 56)):
        _assert_is_pillow_s(_picture(100, 130, mode), size_wh)
    _assert_is_pillow_s(_picture(7, 702, mode), (28, 560))
    assert not caplog.records


def test_a_pillow_that_resizes_otherwise_does_it_itself(fresh, monkeypatch, caplog):
    _replace_pillow_s(monkeypatch, _nearest)
    for _ in range(2):
        _assert_is_pillow_s(_picture(100, 130, "RGB"), (84, 56))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not known here" in caplog.text


def test_without_numba_pillow_resizes(fresh, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "numba", None)
    for mode in ("RGB", "L"):
        _assert_is_pillow_s(_picture(100, 130, mode), (84, 56))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "numba does not work here" in caplog.text


def test_where_nothing_compiled_can_be_kept_it_is_compiled_again(fresh, monkeypatch, caplog):
    compiled = resample._compiled

    def without_folder(cache):
        if cache:
            raise RuntimeError("cannot cache function '_columns': no locator available")
        return compiled(cache)

    monkeypatch.setattr(resample, "_compiled", without_folder)
    assert resample._order("RGB") is not None
    assert not caplog.records


def test_very_long_pictures_are_left_to_pillow(monkeypatch):
    image = _picture(resample._LONGEST + 1, 3, "RGB")
    resample._order("RGB")
    monkeypatch.setattr(resample, "_weights", None)
    _assert_is_pillow_s(image, (28, 28))


def test_numba_is_not_imported_before_a_picture_is_resized():
    code = "import sys, data_pipelines.image; assert 'numba' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
