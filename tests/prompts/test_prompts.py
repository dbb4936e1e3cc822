"""Questions and answers as text: formats, both languages, and the way back to the target."""

import re
import string

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.prompts import (
    AnswerError,
    TemplateError,
    TermError,
    answer_text,
    quantity,
    render,
    render_question,
    term,
    term_names,
    terms,
)
from umit_jax.targets import Frame, boxes_target, convert, options_target, points_target, text_target

LANGUAGES = ("en", "zh")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@st.composite
def frames(draw, axes: int):
    size = tuple(draw(st.integers(2, 3000)) for _ in range(axes))
    return Frame("raw" if axes == 2 else "voxel", size)


@st.composite
def boxes(draw, frame: Frame, smallest: float):
    corners = [sorted(draw(st.floats(0, s)) for _ in range(2)) for s in frame.size]
    near, far = zip(*corners, strict=True)
    thin = [s * smallest for s in frame.size]
    near = tuple(min(n, s - t) for n, s, t in zip(near, frame.size, thin, strict=True))
    return near + tuple(max(f, n + t) for f, n, t in zip(far, near, thin, strict=True))


@given(data=st.data())
def test_two_axis_boxes_come_back_within_half_a_unit(data):
    frame = data.draw(frames(2))
    items = [("liver", data.draw(boxes(frame, 1.01 / 1000))) for _ in range(data.draw(st.integers(1, 3)))]
    text = answer_text(boxes_target(frame, items), task="detection", language="en")
    found = re.findall(r"<\|box_start\|>\((\d+),(\d+)\),\((\d+),(\d+)\)<\|box_end\|>", text)
    assert len(found) == len(items)
    for numbers, (_, box) in zip(found, items, strict=True):
        wanted = convert(box, frame, frame.norm1000())
        assert np.abs(np.array(numbers, float) - wanted).max() <= 0.5 + 1e-9


@given(data=st.data())
def test_three_axis_boxes_come_back_within_half_a_unit(data):
    frame = data.draw(frames(3))
    box = data.draw(boxes(frame, 0.0))
    box = tuple(min(n, s - 1.01) for n, s in zip(box[:3], frame.size, strict=True)) + box[3:]
    box = box[:3] + tuple(max(f, n + 1.01) for f, n in zip(box[3:], box[:3], strict=True))
    text = answer_text(boxes_target(frame, [("liver", box)]), task="detection", language="zh")
    match = re.fullmatch(r"\[\((\d+),(\d+),(\d+)\),\((\d+),(\d+),(\d+)\)\]", text)
    assert match is not None
    assert np.abs(np.array(match.groups(), float) - box).max() <= 0.5 + 1e-9


@given(data=st.data(), axes=st.sampled_from([2, 3]))
def test_points_come_back_within_half_a_unit(data, axes):
    frame = data.draw(frames(axes))
    point = [data.draw(st.floats(0, s)) for s in frame.size]
    text = answer_text(points_target(frame, [("carina", point)]), task="landmark", language="en")
    assert text[0] == "["
    assert text[-1] == "]"
    assert np.abs(np.array([float(c) for c in text[1:-1].split(",")]) - point).max() <= 0.5 + 1e-9


@given(
    options=st.lists(st.text(string.ascii_letters, min_size=1), min_size=2, max_size=9, unique=True),
    first=st.sampled_from([0, 1]),
    language=st.sampled_from(LANGUAGES),
    data=st.data(),
)
def test_options_come_back_from_number_and_text(options, first, language, data):
    index = data.draw(st.integers(0, len(options) - 1))
    text = answer_text(options_target(options, index, first), task="vqa", language=language)
    number, spoken = re.split("[:：]", text, maxsplit=1)
    assert int(number) - first == index
    assert spoken == options[index]


def test_a_box_thinner_than_one_unit_stays_open():
    frame = Frame("raw", (4000, 4000))
    for near in (0.0, 3999.0):
        text = answer_text(
            boxes_target(frame, [("x", (near, near, near + 1, near + 1))]), task="detection", language="en"
        )
        x1, _, x2, _ = (int(n) for n in re.findall(r"\d+", text))
        assert 0 <= x1 < x2 <= 1000


def test_answer_formats_are_those_of_the_released_checkpoints():
    yes_no = options_target(["yes", "no"], 0, 1)
    assert answer_text(yes_no, task="vqa", language="en") == "1:yes"
    assert answer_text(options_target(["是", "否"], 1, 1), task="vqa", language="zh") == "2：否"
    assert answer_text(options_target(["a", "b"], 0, 0), task="classification", language="en") == "0:a"
    box = boxes_target(Frame("raw", (200, 100)), [("liver", (20, 10, 100, 50))])
    expected = "<|object_ref_start|>liver<|object_ref_end|><|box_start|>(100,100),(500,500)<|box_end|>"
    assert answer_text(box, task="detection", language="en") == expected
    solid = boxes_target(Frame("voxel", (256, 256, 32)), [("liver", (1, 2, 3, 40, 50, 6))])
    assert answer_text(solid, task="detection", language="en") == "[(1,2,3),(40,50,6)]"
    assert answer_text(text_target("two"), task="vqa", language="en") == "two"


def test_a_task_refuses_a_target_it_does_not_answer_with():
    with pytest.raises(AnswerError, match="landmark"):
        answer_text(text_target("here"), task="landmark", language="en")
    two = points_target(Frame("norm1000", (1000, 1000)), [("a", (1, 1)), ("b", (2, 2))])
    with pytest.raises(AnswerError, match="one point"):
        answer_text(two, task="landmark", language="en")


def test_an_unknown_term_is_an_error_that_names_it():
    with pytest.raises(TermError, match="spleeen"):
        term("spleeen", "en")
    with pytest.raises(TermError, match="'de'"):
        term("spleen", "de")


def test_every_term_has_two_names_and_one_place():
    assert len(term_names("organs")) == 117
    for names in terms._table().values():
        assert len(names) in (2, 3)
        assert all(isinstance(name, str) and name.strip() for name in names)
        assert any("\u4e00" <= c <= "\u9fff" for c in names[1]) or names[1] == names[0]
    assert term("kidney_left", "en") == "left kidney"
    assert term("vertebrae_L3", "zh") == "第3腰椎"
    assert term("nucleus", "en", plural=True) == "cell nuclei"


def test_every_kind_is_worded_in_both_languages_with_the_same_slots():
    for task, kinds in render.read_templates(None).items():
        if task == "version":
            continue
        for kind, languages in kinds.items():
            assert set(languages) == set(LANGUAGES), f"{task}/{kind}"
            slots = {frozenset(re.findall(r"{(\w+)}", text)) for texts in languages.values() for text in texts}
            assert len(slots) == 1, f"{task}/{kind}: wordings differ in their slots"
            assert all(len(texts) >= 2 and len(set(texts)) == len(texts) for texts in languages.values())


def test_the_question_lists_the_options_as_the_answer_will_name_them():
    question = render_question(rng(), "vqa", "presence", "en", target="pleural_effusion", options=["yes", "no"])
    assert question.endswith("\n1:yes\n2:no")
    question = render_question(rng(), "classification", "modality", "zh", options=["CT", "超声"])
    assert question.endswith("\n0：CT\n1：超声")


def test_a_wrong_slot_or_kind_is_an_error_that_names_it():
    with pytest.raises(TemplateError, match="options"):
        render_question(rng(), "vqa", "presence", "en", target="pleural_effusion")
    with pytest.raises(TemplateError, match="size"):
        render_question(rng(), "vqa", "count", "en", target="nucleus", size=(3, 4))
    with pytest.raises(TemplateError, match="vqa/nothing"):
        render_question(rng(), "vqa", "nothing", "en")


def test_wordings_vary_with_the_generator_and_can_be_limited():
    def ask(**limits):
        return {render_question(rng(i), "report", "report", "zh", **limits) for i in range(40)}

    assert ask() == set(render.wordings("report", "report", "zh"))
    assert ask(wording_count=1) == {render.wordings("report", "report", "zh")[0]}


def test_option_text_with_braces_is_left_alone():
    question = render_question(rng(), "vqa", "choice", "en", target="liver", options=["{size}", "b"])
    assert "1:{size}" in question


def test_quantities_have_one_convention():
    assert [quantity(v, "mL") for v in (0.04, 4.26, 9.94, 9.96, 1482.4)] == [
        "0.0 mL",
        "4.3 mL",
        "9.9 mL",
        "10 mL",
        "1482 mL",
    ]


def test_the_yaml_files_carry_a_version():
    for name in ("templates.yaml", "terms.yaml"):
        with open(f"{render.__file__.rsplit('/', 1)[0]}/{name}", encoding="utf-8") as file:
            assert isinstance(yaml.safe_load(file)["version"], int)
