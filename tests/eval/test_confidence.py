"""Confidence of a box: the tokens that say it and no others, in every way of writing boxes."""

import math

import pytest

from umit_jax.eval.confidence import box_confidences
from umit_jax.eval.parse import parse
from umit_jax.targets import Frame, boxes_target

FLAT = boxes_target(Frame("raw", (100, 200)), [("liver", [0, 0, 10, 10]), ("spleen", [0, 0, 10, 10])])
SOLID = boxes_target(Frame("voxel", (64, 64, 16)), [("liver", [0, 0, 0, 10, 10, 10])])


def confidences(pieces, truth):
    """Tokens are numbers of pieces of text; piece i has probability p."""
    texts = [text for text, _ in pieces]
    logps = [math.log(p) for _, p in pieces]
    return box_confidences(
        range(len(texts)),
        logps,
        lambda tokens: "".join(texts[i] for i in tokens),
        lambda text: parse(text, truth, "en"),
    )


QWEN = [
    ("<|object_ref_start|>", 0.9), ("liver", 0.9), ("<|object_ref_end|>", 0.9), ("<|box_start|>(1,", 0.9),
    ("2),(30,", 0.9), ("40)", 0.9), ("<|box_end|><|object_ref_start|>", 0.5), ("spleen<|object_ref_end|>", 0.5),
    ("<|box_start|>(5,6),(7,8)", 0.5), ("<|box_end|>", 0.01),
]  # fmt: skip
JSON = [
    ("```json\n[", 0.8), ('{"bbox_2d": [1, 2, 30, 40]', 0.8), (', "label": "liver"}', 0.8), (",\n", 0.25),
    ('{"bbox_2d": [5, 6, 7, 8], "label"', 0.25), (': "spleen"}', 0.25), ("\n]\n```", 0.01),
]  # fmt: skip
CUBE = [("[(1,2,3),", 0.9), ("(4,5,6)]", 0.4)]


@pytest.mark.parametrize(
    ("pieces", "truth", "expected"),
    [(QWEN, FLAT, [0.9, 0.5]), (JSON, FLAT, [0.8, 0.25]), (CUBE, SOLID, [0.6])],
    ids=["qwen", "json", "3d"],
)
def test_a_box_has_the_mean_of_its_own_tokens(pieces, truth, expected):
    assert confidences(pieces, truth) == pytest.approx(expected, rel=2e-3)


def test_a_box_that_is_refused_has_no_confidence_and_leaves_its_tokens_to_the_next():
    pieces = [("liver(9,9),(1,1)", 0.5), (" spleen(1,2),(3,4)", 0.5), (" and no more", 0.01)]
    assert confidences(pieces, FLAT) == pytest.approx([0.5], rel=2e-3)
    assert confidences([("nothing", 0.5)], FLAT) == []
