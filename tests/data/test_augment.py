"""Augmentation in the training stream: targets that stay right, planned sizes that stay, the same pixels everywhere."""

import collections
import dataclasses
import itertools
import re
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_records import image, png, record, volume

from configs import common
from data_pipelines.augment import DONE, FILLS, LONGER, NO_FAMILY, NOT_DRAWN, Augmenter, draw_geometry, seen_through
from data_pipelines.augment_settings import AugmentError, Settings
from data_pipelines.example import Limits, Processing, build_example
from data_pipelines.geometry import Geometry
from data_pipelines.mixture import make_stream
from data_pipelines.prompts import answer_text
from data_pipelines.record import Media
from data_pipelines.shards import ShardWriter
from data_pipelines.tokenizer import train_sentencepiece
from data_pipelines.tone import Tone, in_hounsfield
from umit_jax.targets import Frame, TargetError, boxes_target, check_target, convert

PROCESSING = Processing(28 * 28, 12 * 28 * 28)
LIMITS = Limits(400, 1024)
EVERYTHING = {"flip": 0.5, "crop": 0.5, "resize": 0.3, "intensity": 0.5, "corrupt": 0.3}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = ["Draw a box around the nucleus.", "<|box_start|>(12,345),(678,90)<|box_end|>", "yes"] * 20
    return train_sentencepiece(texts, tmp_path_factory.mktemp("tokenizer"), 340)


def bright_box(number, w=120, h=90):
    """A slide with one white rectangle, asked for."""
    rng = np.random.default_rng(number)
    x1, y1 = rng.integers(8, [w // 2, h // 2])
    x2, y2 = x1 + rng.integers(15, w // 2 - 8), y1 + rng.integers(15, h // 2 - 8)
    pixels = np.full((h, w, 3), 20, np.uint8)
    pixels[y1:y2, x1:x2] = 255
    media = Media((png(pixels),), "image", "SM", (w, h))
    target = boxes_target(Frame("raw", (float(w), float(h))), [("nucleus", [x1, y1, x2, y2])])
    answer = answer_text(target, task="detection", language="en")
    question = "Draw a box around the nucleus."
    found = record(number, question=question, answer=answer, media=(media,), task="detection")
    return dataclasses.replace(found, target=target, topic="box/nucleus")


def augmenter(tokenizer, processing=PROCESSING, seed=0, **settings):
    return Augmenter(Settings(**settings), tokenizer, processing, LIMITS, seed)


def picture(example):
    """The frame (h, w, 3) that the patches show, of one image in 2x2 blocks."""
    hw, patches = example.patch_hw_P2, example.patches_PC.reshape(-1, 3, 2, 14, 14)[:, :, 0]
    rows, columns = hw.max(axis=0) + 1
    out = np.zeros((rows, columns, 14, 14, 3), np.uint8)
    out[hw[:, 0], hw[:, 1]] = patches.transpose(0, 2, 3, 1)
    return out.transpose(0, 2, 1, 3, 4).reshape(rows * 14, columns * 14, 3)


def said(example, tokenizer):
    text = tokenizer.decode(example.targets_S[example.weights_S > 0].tolist())
    return [int(n) for n in re.findall(r"\d+", text)]


@pytest.mark.parametrize("boxes", ["norm1000", "resized"])
@pytest.mark.parametrize("kind", ["flip", "crop", "resize"])
def test_the_box_that_is_said_is_where_the_object_is_shown(tokenizer, kind, boxes):
    processing = dataclasses.replace(PROCESSING, boxes=boxes)
    changed = 0
    for number in range(12):
        plain = build_example(bright_box(number), tokenizer, processing, LIMITS)
        example = augmenter(tokenizer, processing, **{kind: 1.0}).example(bright_box(number), epoch=0)
        assert example.patches_PC.shape == plain.patches_PC.shape
        assert len(example.tokens_S) <= len(plain.tokens_S)
        assert set(example.augmented) == {kind}
        if example.augmented[kind] != DONE:
            assert example.augmented[kind] == LONGER
            np.testing.assert_array_equal(example.patches_PC, plain.patches_PC)
            np.testing.assert_array_equal(example.tokens_S, plain.tokens_S)
            continue
        changed += 1
        shown = picture(example)
        inside = shown[..., 0] > 140
        size = shown.shape[1::-1]
        spoken = (1000, 1000) if boxes == "norm1000" else size
        numbers = convert(said(example, tokenizer)[-4:], Frame("raw", spoken), Frame("raw", size))
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.abs(np.subtract(found, numbers)).max() <= 1.5, (number, found, numbers)
    assert changed >= 4


def test_nothing_is_done_by_default_and_examples_are_those_without_augmentation(tokenizer):
    assert Settings.from_config(common.augment()) is None
    off = augmenter(tokenizer, intensity=1e-12).example(bright_box(1), 0)
    plain = build_example(bright_box(1), tokenizer, PROCESSING, LIMITS)
    for name, value in vars(plain).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(off, name), err_msg=name)
    assert plain.augmented is None
    assert off.augmented == {"intensity": NOT_DRAWN}


def test_what_is_done_depends_on_seed_epoch_and_id_only(tokenizer):
    found = bright_box(3)

    def example(seed=0, epoch=0, what=found):
        return augmenter(tokenizer, seed=seed, intensity=1.0, corrupt=1.0).example(what, epoch).patches_PC

    np.testing.assert_array_equal(example(), example())
    others = [example(seed=1), example(epoch=1), example(what=dataclasses.replace(found, id="toy/other"))]
    for other in others:
        assert (other != example()).any()


def test_one_kind_that_is_switched_on_changes_nothing_of_another(tokenizer):
    for number in range(8):
        alone = augmenter(tokenizer, flip=0.5).example(bright_box(number), 0)
        both = augmenter(tokenizer, flip=0.5, intensity=1.0).example(bright_box(number), 0)
        assert alone.augmented["flip"] == both.augmented["flip"]
        np.testing.assert_array_equal(alone.tokens_S, both.tokens_S)


def test_all_frames_of_a_volume_are_changed_alike_as_video_and_as_slices(tokenizer):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 84, 3), np.uint8)
    media = Media((png(pixels),) * 4, "volume", "SM", (84, 60, 4))
    target = boxes_target(Frame("voxel", (84.0, 60.0, 4.0)), [("cell", [20, 20, 1, 60, 50, 3])])
    answer = answer_text(target, task="detection", language="en")
    found = record(question="Detect the cell.", answer=answer, media=(media,), task="detection")
    found = dataclasses.replace(found, target=target, topic="box3d/cell")
    examples = {}
    for how in ("video", "slices"):
        processing = dataclasses.replace(PROCESSING, volume_as=how)
        some = augmenter(tokenizer, processing, flip=1.0, crop=1.0, intensity=1.0, noise=0.0)
        examples[how] = some.example(found, 0)
    assert examples["video"].augmented == dict.fromkeys(("flip", "crop", "intensity"), DONE)
    assert said(examples["video"], tokenizer) == said(examples["slices"], tokenizer)
    z = said(examples["video"], tokenizer)
    assert (z[2], z[5]) == (1, 3)
    slices = np.split(examples["slices"].patches_PC, 4)
    for other in [*slices, *np.split(examples["video"].patches_PC, 2)]:
        np.testing.assert_array_equal(other, slices[0])
    plain = build_example(found, tokenizer, dataclasses.replace(PROCESSING, volume_as="slices"), LIMITS)
    assert (slices[0] != np.split(plain.patches_PC, 4)[0]).any()


def test_all_images_of_a_comparison_are_changed_alike(tokenizer):
    pair = record(media=(image(seed=4), image(seed=4)), task="comparison", question="Compare.", answer="Both alike.")
    example = augmenter(tokenizer, intensity=1.0, corrupt=1.0, families=("motion_blur", "gamma_corr_up"), noise=0.0)
    first, second = np.split(example.example(pair, 0).patches_PC, 2)
    np.testing.assert_array_equal(first, second)


def test_a_target_that_fills_the_image_is_not_cropped(tokenizer):
    found = bright_box(0)
    target = boxes_target(Frame("raw", (120.0, 90.0)), [("nucleus", [0, 0, 120, 80])])
    answer = answer_text(target, task="detection", language="en")
    turns = (found.turns[0], dataclasses.replace(found.turns[1], text=answer))
    found = dataclasses.replace(found, target=target, turns=turns)
    assert augmenter(tokenizer, crop=1.0).example(found, 0).augmented == {"crop": FILLS}


@given(st.data())
def test_no_geometry_that_is_drawn_cuts_a_target(data):
    corner = st.sampled_from([0.0, 0.25, 1.0]) | st.floats(0, 1)
    corners = [sorted((data.draw(corner), data.draw(corner))) for _ in range(data.draw(st.integers(1, 3)) * 2)]
    boxes = [[x[0] * 300, y[0] * 200, max(x[1] * 300, x[0] * 300 + 1e-3), max(y[1] * 200, y[0] * 200 + 1e-3)]
             for x, y in zip(corners[::2], corners[1::2], strict=True)]  # fmt: skip
    target = boxes_target(Frame("raw", (301.0, 201.0)), [("nucleus", box) for box in boxes])
    settings = Settings(crop_least=data.draw(st.floats(0.01, 1)), resize_least=data.draw(st.floats(0.01, 1)))
    kinds = ["flip", data.draw(st.sampled_from(["crop", "resize"]))]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    seen = draw_geometry(rng, kinds, target, settings)
    assert check_target(seen.target(target))
    assert min(np.subtract(seen.high, seen.low)) > 0
    if "crop" in kinds:
        assert min(seen.low) >= 0
        assert max(seen.high) <= 1
        assert np.ptp(np.subtract(seen.high, seen.low)) < 1e-9  # both sides alike
        assert seen.high[0] - seen.low[0] >= settings.crop_least - 1e-9


def test_what_lies_over_the_image_is_for_classification_only(tokenizer):
    options = {"kind": "options", "options": ["mucus", "debris"], "index": 0, "first": 0}
    classified = dataclasses.replace(bright_box(0), task="classification", target=options)
    ink = augmenter(tokenizer, corrupt=1.0, families=("stain_deposit",))
    assert ink.example(bright_box(0), 0).augmented == {"corrupt": NO_FAMILY}
    assert ink.example(classified, 0).augmented == {"corrupt": DONE}


def test_a_crop_that_cuts_a_target_is_an_error():
    with pytest.raises(TargetError, match="outside the image"):
        seen_through(bright_box(0), Geometry((0.5, 0.0), (1.0, 1.0)))


def test_hounsfield_units_get_a_window_within_the_stored_one():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, None, :, None], 3, axis=-1)
    tone = Tone(brightness=0.1, contrast=1.3, gamma=1.2, noise=0.0, ends=(0.1, 0.9))
    windowed = tone.apply(ramp, True, np.random.default_rng(0))[0, 0, :, 0].astype(int)
    assert windowed[0] == 0 == windowed[25]
    assert windowed[230] == 255 == windowed[255]
    np.testing.assert_allclose(windowed[26:229], (np.arange(26, 229) - 25.5) / 204 * 255, atol=0.51)
    other = tone.apply(ramp, False, np.random.default_rng(0))[0, 0, :, 0].astype(int)
    assert (np.diff(other) >= 0).all()
    assert other[0] == 0
    assert other[128] == pytest.approx(255 * ((128 / 255) ** 1.2 * 1.3 - 0.15 + 0.1), abs=1)
    ct = dataclasses.replace(image(), modality="CT")
    assert [in_hounsfield(dataclasses.replace(ct, window=w)) for w in ("lung", "lung+bone+brain", "minmax", "")] == [
        True, True, False, False
    ]  # fmt: skip
    assert not in_hounsfield(dataclasses.replace(ct, modality="DX", window="lung"))


def test_noise_has_the_deviation_that_is_drawn_and_no_colour_on_grey():
    grey = np.full((2, 80, 90, 3), 120, np.uint8)
    tone = Tone(brightness=0.0, contrast=1.0, gamma=1.0, noise=0.02, ends=(0.0, 1.0))
    noisy = tone.apply(grey, False, np.random.default_rng(0)).astype(float) - 120
    assert noisy.std() == pytest.approx(255 * 0.02, rel=0.03)
    assert abs(noisy.mean()) < 0.1
    assert np.abs(noisy).max() > 2.5 * 255 * 0.02
    assert (noisy == noisy[..., :1]).all()
    assert (noisy[0] != noisy[1]).any()
    red = np.array(grey)
    red[..., 0] = 200
    coloured = tone.apply(red, False, np.random.default_rng(0)).astype(float)
    assert (np.diff(coloured - red, axis=-1) != 0).any()


def test_a_crop_with_no_room_to_choose_is_the_target_itself():
    for number in range(400):
        near, far = np.sort(np.random.default_rng(number).uniform(0.01, 0.99, (2, 2)), axis=0)
        near[0], far[0] = 0.04, 0.96  # its width decides
        target = boxes_target(Frame("raw", (1.0, 1.0)), [("nucleus", [*near, *far])])
        seen = draw_geometry(np.random.default_rng(0), ["crop"], target, Settings(crop_least=0.5))
        assert check_target(seen.target(target))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    out = tmp_path_factory.mktemp("shards") / "toy"
    with ShardWriter(out, "toy") as writer:
        for i in range(24):
            media = (volume(3, 40, 56, seed=i),) if i % 3 else (image(50, 70, seed=i),)
            writer.add(bright_box(i) if i % 2 else record(i, media=media, question="Is the liver seen?"))
    return {out: 1.0}


def stream(shards, tokenizer, *, workers=0, on=True, **hosts):
    data = {
        "split": "train", "tasks": (), "row_tokens": 200, "row_patches": 160, "rows": 4, "oversize": "shrink",
        "loss_weight": "sample", "temperature": 1.0, "window": 32, "workers": workers, "prefetch": 2,
    }  # fmt: skip
    augment = common.augment()
    augment.update(EVERYTHING if on else {})
    data = types.SimpleNamespace(**data, augment=augment)
    return make_stream(data, shards, tokenizer, PROCESSING, seed=5, **hosts)


def take(found, count, start=0):
    batches = found.batches(start)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def test_any_number_of_hosts_and_any_restart_see_the_same_pixels(shards, tokenizer):
    whole = take(stream(shards, tokenizer), 8)
    assert stream(shards, tokenizer).steps_per_epoch < 8  # the second epoch is in it
    parts = [take(stream(shards, tokenizer, process_index=p, process_count=2), 8) for p in range(2)]
    resumed = take(stream(shards, tokenizer), 3, start=5)
    for step, (batch, info) in enumerate(whole):
        for i, field in enumerate(batch._fields):
            joined = np.concatenate([part[step][0][i] for part in parts])
            np.testing.assert_array_equal(batch[i], joined, err_msg=field)
            if step >= 5:
                np.testing.assert_array_equal(batch[i], resumed[step - 5][0][i], err_msg=field)
        both = collections.Counter()
        for part in parts:
            for kind, outcomes in part[step][1].augmented.items():
                both.update({(kind, outcome): n for outcome, n in outcomes.items()})
        assert both == {(k, o): n for k, outcomes in info.augmented.items() for o, n in outcomes.items()}


@pytest.mark.slow
def test_worker_processes_see_the_same_pixels(shards, tokenizer):
    for (batch, info), (other, other_info) in zip(
        take(stream(shards, tokenizer), 3), take(stream(shards, tokenizer, workers=2), 3), strict=True
    ):
        assert info == other_info
        np.testing.assert_array_equal(batch.patches_BPC, other.patches_BPC)


def test_every_sample_is_counted_once_for_each_kind(shards, tokenizer):
    found = stream(shards, tokenizer)
    batches = take(found, 8)
    for _, info in batches:
        samples = sum(map(len, info.sample_ids))
        assert {kind: sum(outcomes.values()) for kind, outcomes in info.augmented.items()} == dict.fromkeys(
            EVERYTHING, samples
        )
    outcomes = {outcome for _, info in batches for counts in info.augmented.values() for outcome in counts}
    assert {DONE, NOT_DRAWN, "image of a body, which has sides"} <= outcomes


def test_the_plan_is_the_one_without_augmentation(shards, tokenizer):
    ours, plain = stream(shards, tokenizer), stream(shards, tokenizer, on=False)
    assert [ours.row_samples(step) for step in range(6)] == [plain.row_samples(step) for step in range(6)]
    for (batch, info), (other, other_info) in zip(take(ours, 6), take(plain, 6), strict=True):
        assert info.sample_ids == other_info.sample_ids
        assert other_info.augmented is None
        np.testing.assert_array_equal(batch.patch_segments_BP, other.patch_segments_BP)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("flip", 1.5, "data.augment.flip: expected a number from 0 to 1, found 1.5"),
        ("noise", -0.1, "data.augment.noise: expected a number from 0 to 1"),
        ("crop_least", 0.0, "expected crop_least and resize_least above 0"),
        ("families", ("fog",), "data.augment.families: expected some of .*, found 'fog'"),
        ("severities", (0,), "data.augment.severities: expected some of 1 to 5"),
    ],
)
def test_a_wrong_setting_is_named(field, value, message):
    config = common.augment()
    config.update({field: value})
    with pytest.raises(AugmentError, match=message):
        Settings.from_config(config)
