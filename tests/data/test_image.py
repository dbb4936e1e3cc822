import ast
import inspect
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from toy_records import image, noise, png, volume

from data_pipelines.image import (
    ImageError,
    Processing,
    media_patches,
    patch_hw,
    patchify,
    plan_spans,
    smart_resize,
)
from data_pipelines.record import Media

sides = st.integers(1, 300)
MEAN, STD = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])


@pytest.fixture(scope="module")
def hf():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl

    return image_processing_pil_qwen2_vl


def denormalised(pixel_values_PC):
    """The reference's float patches -> uint8."""
    values = pixel_values_PC.reshape(len(pixel_values_PC), 3, -1) * STD[:, None] + MEAN[:, None]
    return np.rint(values * 255).astype(np.uint8).reshape(len(pixel_values_PC), -1)


@given(sides, sides, st.integers(1, 400), st.integers(0, 400))
def test_smart_resize_is_the_reference(hf, h, w, low, extra):
    assume(max(h, w) <= 200 * min(h, w))
    low, high = low * 28 * 28, (low + extra) * 28 * 28
    assert smart_resize(h, w, low, high) == hf.smart_resize(h, w, 28, low, high)


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 300), st.integers(20, 300), st.integers(1, 12), st.integers(0, 40), st.integers(0, 9))
def test_image_patches_are_those_of_the_reference_processor(hf, h, w, low, extra, seed):
    bounds = {"min_pixels": low * 28 * 28, "max_pixels": (low + extra) * 28 * 28}
    processing = Processing(**bounds, total_pixels=10**9)
    pixels = noise(h, w, seed)
    media = Media((png(pixels),), "image", "CT", (w, h))
    (span,) = plan_spans([media], processing)
    expected = hf.Qwen2VLImageProcessorPil(**bounds)(images=[pixels], return_tensors="np")
    assert [list(span.grid)] == expected["image_grid_thw"].tolist()
    patches = media_patches(0, media, [span], processing)
    np.testing.assert_array_equal(patches, denormalised(expected["pixel_values"]))


def reference_video_patchify():
    """The function of the reference's video processor, without importing the torchvision it asks for."""
    source = Path(find_spec("transformers").origin).parent / "models/qwen2_vl/video_processing_qwen2_vl.py"
    functions = {n.name: n for n in ast.walk(ast.parse(source.read_text())) if isinstance(n, ast.FunctionDef)}
    scope = {"torch": pytest.importorskip("torch")}
    exec(ast.unparse(functions["patchify"]), scope)
    return scope["patchify"]


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7])
def test_video_patches_are_those_of_the_reference(hf, frames):
    import torch

    video = np.stack([noise(56, 84, i) for i in range(frames)])
    expected, *grid = reference_video_patchify()(None, torch.tensor(video).permute(0, 3, 1, 2)[None], 14, 2, 2)
    patches, ours = patchify(video)
    assert list(ours) == grid
    np.testing.assert_array_equal(patches, expected[0].numpy())


def test_grey_and_transparent_images_become_rgb():
    grey = np.arange(56 * 56, dtype=np.uint8).reshape(56, 56)
    grey_media = Media((png(grey),), "image", "CT", (56, 56))
    rgb_media = Media((png(np.stack([grey] * 3, -1)),), "image", "CT", (56, 56))
    processing = Processing()
    (span,) = plan_spans([grey_media], processing)
    grey_patches, rgb_patches = (media_patches(0, m, [span], processing) for m in (grey_media, rgb_media))
    np.testing.assert_array_equal(grey_patches, rgb_patches)


@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))
def test_patch_rows_and_columns_follow_the_patches(t, rows, columns):
    h, w = 2 * rows, 2 * columns
    hw = np.stack(np.mgrid[:h, :w], -1).repeat(14, 0).repeat(14, 1).astype(np.uint8)
    frames = np.repeat(np.concatenate([hw, hw[..., :1]], -1)[None], 2 * t, axis=0)
    patches, grid = patchify(frames)
    np.testing.assert_array_equal(patches.reshape(len(patches), 3, -1)[:, :2, 0], patch_hw(grid))


def test_a_volume_is_one_video_or_an_image_per_slice():
    media = [image(40, 56), volume(depth=5)]
    video, slices = (plan_spans(media, Processing(volume_as=how)) for how in ("video", "slices"))
    assert [(s.media, len(s.frames), s.video, s.grid[0]) for s in video] == [(0, 1, False, 1), (1, 5, True, 3)]
    assert [(s.media, s.frames.start, s.video) for s in slices[1:]] == [(1, i, False) for i in range(5)]


media_lists = st.lists(
    st.one_of(
        st.builds(lambda h, w: image_of(w, h), st.integers(14, 300), st.integers(14, 300)),
        st.builds(lambda h, w, d: image_of(w, h, d), st.integers(14, 300), st.integers(14, 300), st.integers(1, 40)),
    ),
    min_size=1,
    max_size=4,
)


def image_of(w, h, d=None):
    size = (w, h) if d is None else (w, h, d)
    return Media((b"",) * (d or 1), "image" if d is None else "volume", "CT", size)


@settings(max_examples=200, deadline=None)
@given(media_lists, st.integers(1, 300), st.sampled_from(["video", "slices"]))
def test_shrinking_fits_and_takes_the_largest_size_that_does(media, room, how):
    processing = Processing(volume_as=how, total_pixels=10**9)
    try:
        spans = plan_spans(media, processing, room)
    except ImageError:
        smallest = plan_spans(media, Processing(min_pixels=1, max_pixels=1, total_pixels=10**9, volume_as=how))
        assert sum(s.tokens(2) for s in smallest) > room
        return
    used = sum(s.tokens(2) for s in spans)
    assert used <= room
    free = plan_spans(media, processing)
    if sum(s.tokens(2) for s in free) <= room:
        assert spans == free
    assert len(spans) == len(free)


def test_total_pixels_bounds_all_media_together():
    media = [image_of(280, 280)] * 4
    spans = plan_spans(media, Processing(total_pixels=100 * 28 * 28))
    assert [s.grid for s in spans] == [(1, 10, 10)] * 4


def test_impossible_images_are_refused_with_their_size():
    with pytest.raises(ImageError, match="image of 2000 x 5 pixels"):
        plan_spans([image_of(2000, 5)], Processing())
    with pytest.raises(ImageError, match="40 vision tokens at the smallest size, there is room for 39"):
        plan_spans([image_of(100, 100)] * 40, Processing(), 39)
    media = Media((png(noise(50, 60, 0)),), "image", "CT", (50, 60))
    with pytest.raises(ImageError, match=r"\(50, 60\) recorded, \(60, 50\) decoded"):
        media_patches(0, media, plan_spans([media], Processing()), Processing())


@pytest.mark.parametrize(
    ("field", "value"), [("min_pixels", 0), ("volume_as", "film"), ("max_pixels", 1.5), ("patch_size", "14")]
)
def test_processing_names_the_wrong_field(field, value):
    with pytest.raises(ImageError, match=field):
        Processing.from_json({**Processing().to_json(), field: value})


def test_processing_survives_json():
    processing = Processing(min_pixels=3136, max_pixels=12544, volume_as="slices")
    assert Processing.from_json(processing.to_json()) == processing
    with pytest.raises(ImageError, match="unknown key 'fps'"):
        Processing.from_json({"fps": 2})
    assert set(processing.to_json()) == set(inspect.signature(Processing).parameters)
