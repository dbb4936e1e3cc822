"""Boxes in the frame that the model's family speaks: pixels of the resized image, or 0-1000."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_records import image, record, volume

from data_pipelines.example import ExampleError, Limits, Processing, build_example, build_prompt, outline
from data_pipelines.image import plan_spans, smart_resize
from data_pipelines.lengths import fit, measure
from data_pipelines.prompts import answer_text
from data_pipelines.record import Media
from data_pipelines.shards import ShardWriter, open_shards
from data_pipelines.spoken import spoken_frame, spoken_target
from data_pipelines.tokenizer import train_sentencepiece
from umit_jax.eval.parse import parse
from umit_jax.targets import Frame, boxes_target, convert, convert_target, points_target

PIXELS = Processing(28 * 28, 40 * 28 * 28, boxes="resized")
THOUSANDTHS = dataclasses.replace(PIXELS, boxes="norm1000")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = ["Where is the liver?", '```json [{"bbox_2d": [1, 23, 45, 6789], "label": "liver"}]```'] * 20
    return train_sentencepiece(texts, tmp_path_factory.mktemp("tokenizer"), 340)


def detection(media, boxes, **fields):
    """A record as it lies on disk: text in 0-1000, target in raw pixels."""
    target = boxes_target(Frame("raw", tuple(map(float, media[-1].size)), media[-1].spacing_mm), boxes)
    answer = answer_text(target, task="detection", language="en")
    return dataclasses.replace(record(media=media, task="detection", answer=answer, **fields), target=target)


def spoken_answer(example, tokenizer):
    return tokenizer.decode(example.targets_S[example.weights_S > 0].tolist()).removesuffix("<|im_end|>")


@st.composite
def pictures(draw):
    """(w, h) of an image, bounds of its pixels, and boxes in it that are at least two pixels wide at any size."""
    w, h = draw(st.integers(20, 3000)), draw(st.integers(20, 3000))
    low = draw(st.integers(1, 300))
    bounds = low * 28 * 28, (low + draw(st.integers(0, 1000))) * 28 * 28
    boxes = []
    for label in draw(st.lists(st.sampled_from(["liver", "left kidney", 'a "mass"', "肝", "T1 {x}"]), max_size=4)):
        x, y, right, down = (draw(st.floats(0, 1)) for _ in range(4))
        x, y = x * 0.8 * w, y * 0.8 * h
        right, down = draw(st.sampled_from([right, 1.0])), draw(st.sampled_from([down, 1.0]))  # often at the edge
        far = (min(s, c + (s - c) * (0.5 + 0.5 * part)) for s, c, part in ((w, x, right), (h, y, down)))
        boxes.append((label, [x, y, *far]))
    return (w, h), bounds, boxes


@settings(deadline=None, max_examples=200)
@given(pictures())
def test_raw_boxes_come_back_to_half_a_pixel_of_the_resized_image(picture):
    (w, h), (low, high), boxes = picture
    processing = Processing(low, high, boxes="resized")
    truth = boxes_target(Frame("raw", (w, h)), boxes)
    media = (Media((b"",), "image", "CT", (w, h)),)
    shown = dataclasses.replace(record(media=media, task="detection"), target=truth)
    frame = spoken_frame(shown, plan_spans(media, processing), processing)
    assert frame.size[::-1] == smart_resize(h, w, low, high)
    text = answer_text(spoken_target(shown, frame), task="detection", language="en")
    written = json.loads(text.removeprefix("```json").removesuffix("```"))
    assert all(type(n) is int and 0 <= n <= frame.size[i % 2] for o in written for i, n in enumerate(o["bbox_2d"]))

    parsed = parse(text, truth, "en", frame)
    assert [item["label"] for item in parsed["items"]] == [label for label, _ in boxes]
    for item, (_, box) in zip(parsed["items"], boxes, strict=True):
        error = np.abs(
            np.subtract(convert(item["box"], Frame("raw", (w, h)), frame), convert(box, Frame("raw", (w, h)), frame))
        )
        assert error.max() <= 0.5 + 1e-6


def test_one_rule_for_writing_and_reading_the_frame_decides():
    raw = boxes_target(Frame("raw", (200, 100)), [("liver", [20, 10, 100, 50])])
    resized = convert_target(raw, Frame("resized", (56, 28)))
    for target, numbers in ((raw, "(100,100),(500,500)"), (resized, "[6, 3, 28, 14]")):
        text = answer_text(target, task="detection", language="en")
        assert numbers in text
        near = parse(text, target, "en")["items"][0]["box"]
        assert np.abs(np.subtract(near, target["items"][0]["box"])).max() <= 0.5


def test_an_example_says_boxes_in_pixels_of_the_image_it_shows(tokenizer):
    shown = detection((image(300, 200),), [("liver", [20, 30, 100, 150]), ("spleen", [0, 0, 200, 300])])
    example = build_example(shown, tokenizer, PIXELS)
    assert example.spoken == Frame("resized", (140, 196), (0.3225 * 200 / 140, 0.3 * 300 / 196))
    said = json.loads(spoken_answer(example, tokenizer).removeprefix("```json").removesuffix("```"))
    assert [o["label"] for o in said] == ["liver", "spleen"]
    assert said[0]["bbox_2d"] == [14, 20, 70, 98]
    assert said[1]["bbox_2d"] == [0, 0, 140, 196]
    prompt = build_prompt(shown, tokenizer, PIXELS)
    assert prompt.spoken == example.spoken
    np.testing.assert_array_equal(prompt.tokens_S, example.tokens_S[: len(prompt.tokens_S)])


def test_a_family_of_thousandths_says_what_is_on_disk(tokenizer):
    shown = detection((image(300, 200),), [("liver", [20, 30, 100, 150])])
    example = build_example(shown, tokenizer, THOUSANDTHS)
    assert example.spoken is None
    assert spoken_answer(example, tokenizer) == shown.turns[-1].text


def test_boxes_follow_an_image_that_a_short_row_shrinks(tokenizer):
    shown = detection((image(300, 200),), [("liver", [20, 30, 100, 150])])
    whole = build_example(shown, tokenizer, PIXELS)
    limits = Limits(10_000, len(whole.patches_PC) // 2)
    example = build_example(shown, tokenizer, PIXELS, limits)
    (x1, y1, x2, y2), (w, h) = json.loads(spoken_answer(example, tokenizer)[7:-3])[0]["bbox_2d"], example.spoken.size
    assert len(example.patches_PC) == w * h / 14**2 <= limits.patches
    assert (w, h) != whole.spoken.size
    np.testing.assert_allclose([x1 / w, y1 / h, x2 / w, y2 / h], [0.1, 0.1, 0.5, 0.5], atol=0.5 / min(w, h))


def test_planned_sizes_are_those_of_the_built_examples_when_texts_change_with_the_images(tokenizer, tmp_path):
    rng = np.random.default_rng(0)
    with ShardWriter(tmp_path / "out", "toy") as writer:
        for i in range(12):
            w, h = rng.integers(100, 900, 2).tolist()
            boxes = [("liver", [w * a, h * a, w * (a + 0.2), h * (a + 0.4)]) for a in rng.uniform(0, 0.6, 3)]
            writer.add(detection((image(h, w, seed=i),), boxes, number=i))
    source, processing = open_shards(tmp_path / "out", "train"), Processing(28 * 28, 10**6, boxes="resized")
    limits = Limits(400, 700)
    sizes = fit(source, measure(source, tokenizer, processing), tokenizer, processing, limits)
    assert len(sizes.shrunk) > 3
    texts = set()
    for index, tokens, patches in zip(sizes.index_M, sizes.tokens_M, sizes.patches_M, strict=True):
        example = build_example(source[int(index)], tokenizer, processing, limits)
        assert (len(example.tokens_S), len(example.patches_PC)) == (tokens, patches)
        alone = outline(source[int(index)], tokenizer, processing)
        texts.add(alone.text_tokens - outline(source[int(index)], tokenizer, processing, limits).text_tokens)
    assert texts != {0}  # some texts did change


def test_boxes_of_several_images_are_in_the_one_whose_size_the_target_names(tokenizer):
    shown = detection((image(100, 100, seed=1), image(300, 200)), [("liver", [20, 30, 100, 150])])
    assert build_example(shown, tokenizer, PIXELS).spoken.size == (140, 196)


def test_boxes_inside_a_caption_move_and_its_truth_with_them(tokenizer):
    text = "A slice. <|object_ref_start|>liver<|object_ref_end|><|box_start|>(100,100),(500,502)<|box_end|>"
    moved = text.replace("(100,100),(500,502)", "(14,20),(70,98)")
    shown = record(media=(image(300, 200),), task="caption", answer=text)
    example = build_example(shown, tokenizer, PIXELS)
    assert spoken_answer(example, tokenizer) == moved
    assert spoken_target(shown, example.spoken) == {"kind": "text", "text": moved}
    two = record(media=(image(300, 200), image()), task="caption", answer=text)
    with pytest.raises(ExampleError, match="boxes of which image: a text with boxes and 2 images"):
        build_example(two, tokenizer, PIXELS)


def test_3d_boxes_and_points_speak_their_own_frame_in_every_family(tokenizer):
    solid = detection((volume(6, 60, 90),), [("liver", [1, 2, 3, 40, 50, 6])])
    assert spoken_answer(build_example(solid, tokenizer, PIXELS), tokenizer) == "[(1,2,3),(40,50,6)]"
    target = points_target(Frame("norm1000", (1000, 1000)), [("sella", [300, 400])])
    point = dataclasses.replace(record(media=(image(300, 200),), task="landmark", answer="[300,400]"), target=target)
    assert spoken_answer(build_example(point, tokenizer, PIXELS), tokenizer) == "[300,400]"
