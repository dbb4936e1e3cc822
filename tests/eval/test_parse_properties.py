"""Any target, written as the training texts write it, is read back to half a unit of the frame that was spoken."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from umit_jax.eval.parse import parse, read_answer
from umit_jax.targets import Frame, boxes_target, convert_target, options_target, points_target

LABELS = ["liver", "left kidney", "right kidney", "肝", "左肾", "nucleus", "L3"]
texts = st.text(st.characters(codec="utf-8"), max_size=60) | st.text("()[]{}<>|,.;:1290- 是否yesno", max_size=60)
OPTIONS = ["yes", "no", "normal", "是", "否", "lung", "left lung", "CT", "MR", "2", "T1"]
options_lists = st.lists(st.sampled_from(OPTIONS), min_size=2, max_size=5, unique=True)


@st.composite
def frames(draw, ndim, names=("raw", "resized", "voxel")):
    size = tuple(draw(st.integers(8, 4000)) for _ in range(ndim))
    return Frame(draw(st.sampled_from(names)), size, draw(st.none() | st.just((0.5,) * ndim)))


@st.composite
def boxes(draw, ndim):
    """A boxes target whose boxes are at least two spoken units long, as a writer must ensure."""
    frame = draw(frames(ndim))
    items = []
    for label in draw(st.lists(st.sampled_from(LABELS), min_size=1, max_size=4)):
        low = [draw(st.floats(0, 0.7)) for _ in range(ndim)]
        far = [min(1.0, a + 2 / s + draw(st.floats(0, 0.3))) for a, s in zip(low, spoken(frame).size, strict=True)]
        items.append((label, [*np.multiply(low, frame.size), *np.multiply(far, frame.size)]))
    return boxes_target(frame, items)


def spoken(frame):
    return frame.norm1000() if frame.ndim == 2 and frame.name != "resized" else frame


def write_boxes(target, special_tokens):
    written = []
    for item in convert_target(target, spoken(Frame.from_json(target["frame"])))["items"]:
        numbers = [str(round(c)) for c in item["box"]]
        corners = f"({','.join(numbers[: len(numbers) // 2])}),({','.join(numbers[len(numbers) // 2 :])})"
        if len(numbers) == 6:
            written.append(f"{item['label']}[{corners}]")
        elif special_tokens:
            name = f"<|object_ref_start|>{item['label']}<|object_ref_end|>"
            written.append(f"{name}<|box_start|>{corners}<|box_end|>")
        else:
            written.append(item["label"] + corners)
    return "".join(written)


def assert_within_half_a_unit(parsed, target, key):
    frame = Frame.from_json(target["frame"])
    half = np.divide(frame.size, spoken(frame).size) / 2 if key == "box" else 0.5
    assert [item["label"] for item in parsed["items"]] == [item["label"] for item in target["items"]]
    for ours, true in zip(parsed["items"], target["items"], strict=True):
        error = np.abs(np.subtract(ours[key], true[key])).reshape(-1, frame.ndim)
        assert (error <= half + 1e-9).all()


@given(target=boxes(2) | boxes(3), special_tokens=st.booleans())
def test_boxes_come_back_to_half_a_spoken_unit(target, special_tokens):
    assert_within_half_a_unit(parse(write_boxes(target, special_tokens), target, "en"), target, "box")


@given(st.data())
def test_a_point_comes_back_to_half_a_unit_of_its_frame(data):
    frame = data.draw(frames(data.draw(st.sampled_from([2, 3])), names=("raw", "resized", "voxel", "norm1000")))
    point = [data.draw(st.floats(0, 1)) * size for size in frame.size]
    target = points_target(frame, [(data.draw(st.sampled_from(LABELS)), point)])
    text = f"[{','.join(str(round(c)) for c in point)}]"
    assert_within_half_a_unit(parse(text, target, "en"), target, "point")


@given(options_lists, st.integers(0, 1), st.data())
def test_index_and_option_come_back_exactly_in_both_widths_of_colon(options, first, data):
    target = options_target(options, data.draw(st.integers(0, len(options) - 1)), first)
    colon = data.draw(st.sampled_from([":", "：", " : "]))
    text = f"{target['index'] + first}{colon}{options[target['index']]}"
    assert parse(text, target, "en") == target


@given(options_lists, st.data())
def test_the_option_alone_comes_back_whatever_its_case(options, data):
    index = data.draw(st.integers(0, len(options) - 1))
    assume(options[index] != "2")  # a number is also the number of an option
    target = options_target(options, index, 1)
    assert parse(data.draw(st.sampled_from([str.upper, str.lower, str.title]))(options[index]), target, "en") == target


@given(texts, st.sampled_from(["en", "zh"]), boxes(2), boxes(3))
def test_any_text_at_all_is_read_or_refused_with_a_reason(text, language, flat, deep):
    point = points_target(Frame("raw", (10, 10)), [("a", [1, 1])])
    for truth in (options_target(["yes", "no"], 0, 1), point, flat, deep):
        reading = read_answer(text, truth, language)
        assert reading.target is not None or reading.problems
