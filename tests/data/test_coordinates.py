"""Coordinates all the way: raw -> as shown (orientation, spacing, crop, flip) -> text -> parse -> raw, to half a unit.

The path is the one of training and evaluation: media.show and sources.folder place a label file's numbers, spoken.py
and prompts.answer_text say them, umit_jax.eval.parse reads them back in the frame that was spoken.
"""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_records import record

from data_pipelines.augment import seen_through
from data_pipelines.geometry import Geometry
from data_pipelines.image import Processing, plan_spans
from data_pipelines.media.raster import decode
from data_pipelines.media.show import Layout, show_volume, shown_size
from data_pipelines.media.volume import PLANES, Volume, at_spacing, axis_codes, box_of, oriented
from data_pipelines.prompts import answer_text
from data_pipelines.record import Media
from data_pipelines.sources.folder import frame_of, placed
from data_pipelines.sources.views import between
from data_pipelines.spoken import spoken_frame, spoken_target
from umit_jax.eval.parse import parse
from umit_jax.targets import Frame, TargetError, boxes_target, convert, points_target

ORIENTATIONS = [
    "".join(sign[axis] for axis, sign in zip(order, signs, strict=True))
    for order in itertools.permutations(range(3))
    for signs in itertools.product(("LPS", "RAI"), repeat=3)
]
_DIRECTIONS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
spacings = st.none() | st.floats(0.05, 6)


@st.composite
def geometries(draw, low=(0.0, 0.0), high=(1.0, 1.0)):
    """A part that holds low..high (fractions), smaller or larger than the image, mirrored or not."""
    near = [draw(st.sampled_from([0.0, a]) | st.floats(-0.5, a)) for a in low]
    far = [draw(st.sampled_from([1.0, b]) | st.floats(b, 1.5)) for b in high]
    far = [max(b, a + 0.05) for a, b in zip(near, far, strict=True)]
    return Geometry(tuple(near), tuple(far), (draw(st.booleans()), draw(st.booleans())))


def undone(coords, geometry, size):
    """A point or box where it was before; written apart from the code under test."""
    axes = len(size)
    corners = np.array(coords, float).reshape(-1, axes)
    for axis in (0, 1):
        seen = corners[:, axis] / size[axis]
        seen = 1 - seen if geometry.flips[axis] else seen
        span = geometry.high[axis] - geometry.low[axis]
        corners[:, axis] = (geometry.low[axis] + seen * span) * size[axis]
    return np.sort(corners, axis=0).ravel()


def half_units(spoken, frame, geometry):
    """Half a unit of the spoken frame, in units of the original one."""
    part = [b - a for a, b in zip(geometry.low, geometry.high, strict=True)] + [1.0]
    return np.array([0.5 * s / n * p for s, n, p in zip(frame.size, spoken.size, part, strict=False)])


@st.composite
def boxed_pictures(draw):
    """(w, h), spacing, a box, and a geometry in which it is seen at least four thousandths of an image long."""
    size = draw(st.integers(28, 3000)), draw(st.integers(28, 3000))
    near = [draw(st.sampled_from([0.0, 0.5]) | st.floats(0, 0.9)) for _ in size]
    far = [min(1.0, a + draw(st.floats(0.06, 1))) for a in near]
    spacing = draw(spacings)
    box = [*(a * s for a, s in zip(near, size, strict=True)), *(b * s for b, s in zip(far, size, strict=True))]
    return size, None if spacing is None else (spacing, spacing * 1.3), box, draw(geometries(tuple(near), tuple(far)))


@settings(deadline=None, max_examples=120)
@given(boxed_pictures(), st.sampled_from(["norm1000", "resized"]), st.integers(4, 800), st.sampled_from(["en", "zh"]))
def test_a_box_comes_back_from_any_crop_and_flip_in_both_families(picture, boxes, tokens, language):
    size, spacing, box, geometry = picture
    raw = Frame("raw", tuple(map(float, size)), spacing)
    target = boxes_target(raw, [("liver", box)])
    media = (Media((b"",), "image", "SM", size, spacing),)
    answer = answer_text(target, task="detection", language=language)
    before = dataclasses.replace(record(media=media, task="detection", answer=answer, language=language), target=target)

    seen = seen_through(before, geometry)
    processing = Processing(4 * 28 * 28, tokens * 28 * 28, boxes=boxes)
    spans = plan_spans(seen.media, processing)
    assert [span.grid for span in spans] == [span.grid for span in plan_spans(media, processing)]
    frame = spoken_frame(seen, spans, processing)
    text = answer_text(spoken_target(seen, frame), task="detection", language=language)
    assert (text == seen.turns[-1].text) == (frame is None)
    (item,) = parse(text, seen.target, language, frame)["items"]

    error = np.abs(undone(item["box"], geometry, size) - box).reshape(2, 2)
    assert (error <= half_units(frame or raw.norm1000(), raw, geometry) + 1e-6).all()
    if spacing is not None:
        wide = (box[2] - box[0]) * spacing[0]
        moved = seen.target["items"][0]["box"]
        np.testing.assert_allclose((moved[2] - moved[0]) * seen.target["frame"]["mm_per_unit"][0], wide, rtol=1e-6)
        np.testing.assert_allclose(seen.media[0].spacing_mm, seen.target["frame"]["mm_per_unit"], rtol=1e-9)


@settings(deadline=None, max_examples=120)
@given(st.sampled_from(["raw", "resized", "norm1000", "voxel", "mm"]), spacings, st.data())
def test_a_point_comes_back_in_every_frame_that_is_spoken(name, spacing, data):
    axes = 3 if name == "voxel" else data.draw(st.sampled_from([2, 3]))
    size = (1000,) * axes if name == "norm1000" else tuple(data.draw(st.integers(3, 3000)) for _ in range(axes))
    frame = Frame(name, tuple(map(float, size)), None if spacing is None else (spacing,) * axes)
    parts = [data.draw(st.sampled_from([0.0, 1.0]) | st.floats(0, 1)) for _ in size]
    point = [a * s for a, s in zip(parts, size, strict=True)]
    target = points_target(frame, [("sella", point)])
    answer = answer_text(target, task="landmark", language="en")
    geometry = data.draw(geometries(tuple(parts[:2]), tuple(parts[:2])))
    seen = seen_through(dataclasses.replace(record(task="landmark", answer=answer), target=target), geometry)
    (item,) = parse(seen.turns[-1].text, seen.target, "en")["items"]
    error = np.abs(undone(item["point"], geometry, size) - point)
    assert (error <= half_units(frame, frame, geometry) + 1e-6 * np.array(size)).all()


def placed_volume(orientation, size, spacing, block):
    """A volume whose voxel axes grow as the three letters say, bright in a block (x1, y1, z1, x2, y2, z2)."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([_DIRECTIONS[code] for code in orientation], float).T * spacing
    affine[:3, 3] = -20.0, 7.0, 300.0
    assert axis_codes(affine) == orientation
    voxels_ZYX = np.zeros(size[::-1], np.int16)
    voxels_ZYX[tuple(slice(a, b) for a, b in zip(block[2::-1], block[:2:-1], strict=True))] = 1000
    return Volume(voxels_ZYX, affine, "MR")


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48


@settings(deadline=None, max_examples=5)
@given(st.data())
def test_a_box_and_a_point_of_a_file_come_back_from_a_volume_in_any_orientation(data):
    size = tuple(data.draw(st.integers(4, 14)) for _ in range(2))
    size = data.draw(st.permutations([*size, data.draw(st.sampled_from([5, 32, 47]))]))
    spacing = np.array([data.draw(st.floats(0.3, 5)) for _ in range(3)])
    near = [data.draw(st.floats(0, 0.6)) * (s - 2) for s in size]
    # At least a voxel as shown, of which 47 / 20 is the largest: a thinner box is said to be one voxel thick.
    far = [min(float(s), a + 2.5 + data.draw(st.floats(0, 1)) * s) for a, s in zip(near, size, strict=True)]
    block = [int(a) for a in near] + [int(a) + 2 for a in near]
    layout = Layout(data.draw(st.sampled_from(sorted(PLANES))), False, data.draw(st.sampled_from([None, (20, 24, 32)])))
    for orientation in ORIENTATIONS:
        shown = show_volume(placed_volume(orientation, size, spacing, block), layout=layout)
        media = shown.media
        assert media.orientation == PLANES[layout.plane]
        assert media.size == layout.size_xyz or layout.size_xyz is None
        frame = frame_of(media)
        voxel = np.abs(np.linalg.inv(shown.raw.affine_lps) @ shown.shown.affine_lps)[:3, :3].sum(axis=1)
        half = 0.5 * voxel + 1e-5  # of a voxel as shown, along the axes of the file

        bright = np.stack([decode(frame)[..., 0] for frame in media.frames]) > 100
        apart = np.abs(np.subtract(box_of(bright), placed(block, shown, 2))).reshape(2, 3)
        stored = np.abs(np.linalg.inv(shown.shown.affine_lps) @ shown.raw.affine_lps)[:3, :3].sum(axis=1)
        assert (apart < 0.5 + 0.5 * np.maximum(stored, 1)).all(), orientation  # blurred by half a voxel of either

        target = boxes_target(frame, [("liver", placed([*near, *far], shown, 2))])
        (item,) = parse(answer_text(target, task="detection", language="en"), target, "en")["items"]
        back = np.reshape(between(item["box"], shown.shown, shown.raw), (2, 3))
        assert (np.abs(back - [near, far]) <= half).all(), orientation

        target = points_target(frame, [("carina", placed(near, shown, 1))])
        (item,) = parse(answer_text(target, task="landmark", language="zh"), target, "zh")["items"]
        assert (np.abs(np.array(between(item["point"], shown.shown, shown.raw)) - near) <= half).all(), orientation


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_boxes_points_and_masks_follow_a_volume_to_any_spacing(data):
    size = tuple(data.draw(st.integers(12, 30)) for _ in range(3))
    stored = np.array([data.draw(st.floats(0.3, 5)) for _ in range(3)])
    near = [data.draw(st.integers(0, s - 8)) for s in size]
    block = [*near, *(a + data.draw(st.integers(8, s - a)) for a, s in zip(near, size, strict=True))]
    plane = data.draw(st.sampled_from(sorted(PLANES)))
    raw = placed_volume(data.draw(st.sampled_from(ORIENTATIONS)), size, stored, block)
    turned = oriented(raw, PLANES[plane])
    wanted = [mm * data.draw(st.floats(0.4, 3)) for mm in turned.spacing_mm]
    size_xyz = data.draw(st.sampled_from([None, (20, 24, 32)]))
    shown = show_volume(raw, layout=Layout(plane, False, size_xyz, tuple(wanted)))
    spaced = at_spacing(turned, wanted)
    assert shown.media.size == (size_xyz or shown_size(spaced.size))
    extents_mm = np.array(turned.size) * turned.spacing_mm
    assert (np.abs(np.array(spaced.size) * wanted - extents_mm) <= 0.5001 * np.array(wanted)).all()
    np.testing.assert_allclose(np.array(shown.media.size) * shown.media.spacing_mm, extents_mm, rtol=1e-2)

    # Edges lie half way up; each resampling moves that by less than half a voxel of the coarser of its grids.
    placed_block = np.array(placed(block, shown, 2)).reshape(2, 3)
    bright = np.stack([decode(frame)[..., 0] for frame in shown.media.frames]) > 127
    between_grids = [max(1.0, b / a, b / c) for a, b, c in zip(turned.size, shown.shown.size, spaced.size, strict=True)]
    assert (np.abs(np.reshape(box_of(bright), (2, 3)) - placed_block) < np.add(0.5, between_grids)).all()
    mask = dataclasses.replace(turned, voxels_ZYX=(turned.voxels_ZYX > 0).astype(np.uint8))
    masked = at_spacing(mask, wanted, order=0)
    apart = np.reshape(box_of(masked.voxels_ZYX), (2, 3)) - np.reshape(between(block, raw, masked), (2, 3))
    assert (np.abs(apart) <= 0.5 + 1e-6).all()

    frame = frame_of(shown.media)
    half = 0.5 * np.abs(np.linalg.inv(raw.affine_lps) @ shown.shown.affine_lps)[:3, :3].sum(axis=1) + 1e-5
    target = boxes_target(frame, [("liver", placed_block.ravel().tolist())])
    (item,) = parse(answer_text(target, task="detection", language="en"), target, "en")["items"]
    back = np.reshape(between(item["box"], shown.shown, raw), (2, 3))
    assert (np.abs(back - np.reshape(block, (2, 3))) <= half).all()
    target = points_target(frame, [("carina", placed(near, shown, 1))])
    (item,) = parse(answer_text(target, task="landmark", language="zh"), target, "zh")["items"]
    assert (np.abs(np.array(between(item["point"], shown.shown, raw)) - near) <= half).all()


@given(st.tuples(*[st.integers(2, 500)] * 3), st.tuples(*[st.floats(0.1, 5)] * 3), st.data())
def test_voxels_and_millimetres_are_one_ratio_per_axis(size, mm, data):
    voxels = Frame("voxel", tuple(map(float, size)), mm)
    world = voxels.rescaled("mm", tuple(s * m for s, m in zip(size, mm, strict=True)))
    np.testing.assert_allclose(world.mm_per_unit, 1, rtol=1e-12)
    point = [data.draw(st.floats(0, 1)) * s for s in size]
    np.testing.assert_allclose(convert(point, voxels, world), np.multiply(point, mm), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(convert(convert(point, voxels, world), world, voxels), point, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("flips", [(True, False), (False, True), (True, True), (False, False)])
def test_pixels_go_where_their_coordinates_go(flips):
    """A bright rectangle, seen through crops, borders and mirrors, lies in its box."""
    rng = np.random.default_rng(0)
    for _ in range(6):
        w, h = rng.integers(60, 300, 2)
        x1, y1 = rng.integers(0, [w // 2, h // 2])
        x2, y2 = x1 + rng.integers(8, w // 2), y1 + rng.integers(8, h // 2)
        picture = np.zeros((h, w, 3), np.uint8)
        picture[y1:y2, x1:x2] = 255
        low = rng.uniform(-0.3, 1, 2) * (x1 / w, y1 / h)
        high = 1 - rng.uniform(-0.3, 1, 2) * (1 - x2 / w, 1 - y2 / h)
        geometry = Geometry(tuple(low), tuple(high), flips)
        out = geometry.pixels(picture, (140, 112))[..., 0]
        wanted = convert(geometry.coordinates([x1, y1, x2, y2], (w, h)), Frame("raw", (w, h)), Frame("raw", (140, 112)))
        rows, columns = np.flatnonzero(out.max(axis=1) > 127), np.flatnonzero(out.max(axis=0) > 127)
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.abs(np.subtract(found, wanted)).max() <= 1.0


def test_what_lies_outside_the_volume_is_refused_never_moved_to_its_border():
    raw = placed_volume("RAS", (8, 9, 10), np.array([1.0, 1.0, 2.0]), [2, 2, 2, 4, 4, 4])
    shown = show_volume(raw)
    for coords in ([8.01, 1.0, 1.0], [1.0, -0.01, 1.0], [1.0, 1.0, 1.0, 4.0, 4.0, 10.5]):
        with pytest.raises(TargetError, match="outside a volume"):
            between(coords, raw, shown.shown)
    assert between([8.0, 0.0, 10.0], raw, shown.shown) == (0.0, 9.0, 10.0)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("frame", [Frame("raw", (640, 480)), Frame("resized", (616, 476)), Frame("voxel", (64, 64, 8))])
def test_no_boxes_are_said_and_read_back_as_no_boxes(language, frame):
    target = boxes_target(frame, [])
    answer = answer_text(target, task="detection", language=language)
    assert answer.strip()
    assert parse(answer, target, language) == target
