"""Boxes spoken as JSON, as models write it: fenced, bare, one or several, well formed or nearly."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umit_jax.eval.parse import parse, read_answer
from umit_jax.eval.predictions import read_predictions
from umit_jax.eval.score import score
from umit_jax.targets import Frame, boxes_target

RAW, SHOWN = Frame("raw", (200, 100)), Frame("resized", (56, 28))
LIVER = boxes_target(RAW, [("Liver", [50, 25, 100, 50])])
TWO = boxes_target(RAW, [("Liver", [50, 25, 100, 50]), ("left kidney", [0, 0, 25, 25])])
ONE_TEXTS = [
    '```json\n[\n\t{"bbox_2d": [14, 7, 28, 14], "label": "liver"}\n]\n```',
    '```json\n{"bbox_2d": [14, 7, 28, 14], "label": "liver"}\n```',
    '[{"bbox_2d": [14, 7, 28, 14], "label": "LIVER"}]',
    '{"label": "liver", "bbox_2d": [14.0, 7, 28, 14]}',
    '{"bbox_2d": [14, 7, 28, 14]}',
    "[{'bbox_2d': [14, 7, 28, 14], 'label': 'liver'}]",
    'The liver is here: [{"bbox_2d":[14,7,28,14],"label":"liver"}]. Anything else?',
    '{"objects": [{"bbox_2d": [14, 7, 28, 14], "label": "liver", "confidence": 0.9}]}',
    "(14,7),(28,14)",
    "<|object_ref_start|>liver<|object_ref_end|><|box_start|>(14,7),(28,14)<|box_end|>",
]


@pytest.mark.parametrize("text", ONE_TEXTS)
def test_a_box_is_read_in_the_frame_that_was_spoken(text):
    assert parse(text, LIVER, "en", SHOWN) == LIVER


TWO_TEXTS = [
    '```json\n[\n\t{"bbox_2d": [14, 7, 28, 14], "label": "liver"},\n'
    '\t{"bbox_2d": [0, 0, 7, 7], "label": "Left kidney"}\n]\n```',
    '{"bbox_2d": [14, 7, 28, 14], "label": "liver"}\n{"bbox_2d": [0, 0, 7, 7], "label": "left kidney"}',
    '```json\n{"bbox_2d": [14, 7, 28, 14], "label": "liver"}\n```\n'
    '```json\n{"bbox_2d": [0, 0, 7, 7], "label": "left kidney"}\n```',
]


@pytest.mark.parametrize("text", TWO_TEXTS)
def test_several_boxes_keep_their_labels_and_order(text):
    assert parse(text, TWO, "en", SHOWN) == TWO


def test_without_a_spoken_frame_json_speaks_what_the_truths_frame_says():
    text = '[{"bbox_2d": [250, 250, 500, 500], "label": "liver"}]'
    assert parse(text, LIVER, "en") == LIVER
    shown = boxes_target(SHOWN, [("liver", [14, 7, 28, 14])])
    assert parse('[{"bbox_2d": [14, 7, 28, 14], "label": "liver"}]', shown, "en") == shown


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[{"bbox_2d": [14, 7, 28], "label": "liver"}]', "wrong number of coordinates"),
        ('[{"bbox_2d": ["a", 7, 28, 3], "label": "liver"}]', "box without numbers"),
        ('[{"bbox_2d": [1e999, 7, 28, 3], "label": "liver"}]', "box without numbers"),
        ('[{"bbox_2d": [14, 7, 10, 14], "label": "liver"}]', "inverted box"),
        ('[{"bbox_2d": [14, 7, 14, 14], "label": "liver"}]', "empty box"),
        ('```json\n[\n\t{"bbox_2d": [14, 7, 28, 1', "half a box"),
        ("```json\n```", "no box"),
    ],
)
def test_what_is_no_box_is_refused_with_a_reason(text, problem):
    reading = read_answer(text, LIVER, "en", SHOWN)
    assert reading.target is None
    assert reading.problems == (problem,)


def test_a_list_cut_off_keeps_its_whole_boxes_and_says_so():
    text = '```json\n[\n\t{"bbox_2d": [14, 7, 28, 14], "label": "liver"},\n\t{"bbox_2d": [0, 0, 7'
    reading = read_answer(text, TWO, "en", SHOWN)
    assert reading.target == LIVER
    assert reading.problems == ("half a box",)


@pytest.mark.parametrize("text", ["```json\n[]\n```", "[]", "```\n[ ]\n```", '{"objects": []}'])
def test_an_empty_list_says_that_nothing_is_there_whatever_is_true(text):
    nothing = boxes_target(RAW, [])
    for truth in (nothing, LIVER, TWO):
        assert parse(text, truth, "en", SHOWN) == nothing


@given(st.text("{}[]\"':,bbox_2dlabel -1234567890.eE\\n", max_size=80), st.booleans())
def test_any_text_is_read_or_refused_with_a_reason(text, key):
    reading = read_answer('{"bbox_2d": ' + text if key else text, LIVER, "en", SHOWN)
    assert reading.target is not None or reading.problems


def test_an_integer_of_more_digits_than_python_reads_is_no_number_of_a_box():
    reading = read_answer(f'{{"bbox_2d": [1, 2, 3, {"9" * 5000}], "label": "liver"}}', LIVER, "en", SHOWN)
    assert (reading.target, reading.problems) == (None, ("box without numbers",))


def test_a_prediction_carries_the_frame_that_scoring_needs(tmp_path):
    text = '```json\n[\n\t{"bbox_2d": [14, 7, 28, 14], "label": "liver"}\n]\n```'
    line = {"id": "a", "task": "detection", "dataset": "d", "language": "en", "text": text, "truth": LIVER}

    def mean_iou(**more) -> float:
        path = tmp_path / "predictions.jsonl"
        path.write_text(json.dumps(line | more) + "\n", encoding="utf-8")
        rows = score(read_predictions(path)).rows
        return next(row["value"] for row in rows if row["metric"] == "mean_iou" and row["language"] == "all")

    assert mean_iou(spoken=SHOWN.to_json()) == 1
    assert mean_iou() < 0.01  # the same numbers in thousandths
    with pytest.raises(
        ValueError, match=r"predictions.jsonl:1: spoken: frame: expected name, size and mm_per_unit, found"
    ):
        mean_iou(spoken={"name": "resized"})
    with pytest.raises(ValueError, match="spoken: expected a frame of two axes"):
        mean_iou(spoken=Frame("voxel", (3, 4, 5)).to_json())
