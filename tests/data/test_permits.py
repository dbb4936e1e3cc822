"""What may be done to a sample: every cell of the table of docs/augmentation.md, and words in both languages."""

import dataclasses
import re
from pathlib import Path

import pytest
from toy_records import image, record, volume

from data_pipelines import augment
from data_pipelines.permits import KINDS, RULES, permits
from data_pipelines.prompts import answer_text
from data_pipelines.record import Media, Turn
from umit_jax.targets import Frame, boxes_target, points_target

ROOT = Path(__file__).parents[2]
MOVES = ("flip", "crop", "resize")


def slide(seed=0):
    """An image without sides."""
    return dataclasses.replace(image(seed=seed), modality="SM", orientation="", window="")


def detection(label="nucleus", media=None, question="Draw a box around the nucleus.", box=(10, 5, 30, 20)):
    media = media or slide()
    target = boxes_target(Frame("raw", tuple(map(float, media.size))), [(label, box)])
    answer = answer_text(target, task="detection", language="en")
    found = record(question=question, answer=answer, media=(media,), task="detection")
    return dataclasses.replace(found, target=target, topic=f"box/{label}")


def worded(found, text):
    return dataclasses.replace(found, turns=(*found.turns[:-1], Turn("assistant", text)))


FREE = detection()
REFUSED = {
    "image of a body, which has sides": detection(media=dataclasses.replace(image(), orientation="")),
    "not exactly one image or volume": dataclasses.replace(FREE, media=(slide(), slide(1))),
    "answer whose coordinates cannot be moved": worded(FREE, "I see " + FREE.turns[-1].text),
    "names a side or place": detection("nucleus at the left"),
    "asks for a count or size": detection(question="Draw a box around the largest nucleus."),
    "nothing says what must stay in view": record(media=(slide(),), question="Is a mitosis seen?"),
    "no image": record(media=()),
    "names how the picture looks": detection(question="Draw a box around the dark nucleus."),
}


def rows(header):
    """{first cell: other cells} of the table of the page that begins so."""
    page = (ROOT / "docs/augmentation.md").read_text(encoding="utf-8")
    (lines,) = re.findall(rf"^\| {header} \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    cells = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in lines.splitlines()]
    return {first: dict(zip(KINDS, others, strict=True)) for first, *others in cells}


def test_the_page_says_what_the_code_does():
    reasons = dict.fromkeys(reason for rules in RULES.values() for reason in rules)
    page = rows("a sample is not changed if it")
    assert page == {r: {k: "refused" if r in RULES[k] else "-" for k in KINDS} for r in reasons}
    outcomes = dict.fromkeys(outcome for found in augment.OUTCOMES.values() for outcome in found)
    assert rows("outcome") == {o: {k: "can be" if o in augment.OUTCOMES[k] else "-" for k in KINDS} for o in outcomes}
    assert set(RULES) == set(augment.OUTCOMES) == set(KINDS)
    assert set(REFUSED) == set(reasons)


def test_a_sample_without_any_of_it_may_be_changed_in_every_way():
    assert permits(FREE) == dict.fromkeys(KINDS, "")


@pytest.mark.parametrize("reason", REFUSED)
def test_each_reason_refuses_the_kinds_that_the_page_names(reason):
    found = permits(REFUSED[reason])
    assert {kind for kind in KINDS if found[kind] == reason} == {kind for kind in KINDS if reason in RULES[kind]}


@pytest.mark.parametrize(
    "words",
    ["Is it on the LEFT?", "the right-sided one", "upper part", "apical cells", "右侧", "箭头所指", "see [12, 34]",
     "o'clock", "in quadrant 3", "midline"],
)  # fmt: skip
def test_a_place_in_the_question_keeps_the_image_as_it_lies(words):
    found = permits(detection(question=words))
    assert {found[kind] for kind in MOVES} == {"names a side or place"}


@pytest.mark.parametrize(
    "words", ["How many are there?", "a 5mm one", "3.4 cm", "hepatomegaly", "Count them.", "直径", "有几个", "the size"]
)
def test_a_count_or_size_in_the_question_keeps_the_image_as_it_is(words):
    found = permits(detection(question=words))
    assert {found[kind] for kind in MOVES} == {"asks for a count or size"}


@pytest.mark.parametrize("words", ["Summarise what is seen.", "a common one", "a cleft", "Incomplete?"])
def test_a_word_inside_another_is_not_that_word(words):
    assert permits(detection(question=words)) == dict.fromkeys(KINDS, "")


def test_words_are_looked_for_in_answers_options_labels_and_topics_too():
    open_text = record(media=(slide(),), question="What is it?", answer="a bilateral lesion")
    assert permits(open_text)["resize"] == "names a side or place"
    assert permits(dataclasses.replace(open_text, turns=FREE.turns, topic="count/cells"))["resize"]
    options = {"kind": "options", "options": ["left kidney", "spleen"], "index": 1, "first": 0}
    closed = record(media=(slide(),), question="Which?", answer="1:spleen")
    assert permits(closed)["resize"] == ""
    assert permits(dataclasses.replace(closed, target=options))["resize"] == "names a side or place"
    assert permits(detection("kidney_left"))["crop"] == "names a side or place"


def test_a_volume_whose_axes_in_the_patient_are_known_is_never_mirrored():
    target = points_target(Frame("voxel", (44.0, 30.0, 5.0)), [("carina", (4, 5, 2))])
    answer = answer_text(target, task="landmark", language="en")
    for orientation, refused in (("LPS", True), ("", False)):
        media: Media = dataclasses.replace(volume(), modality="SM", orientation=orientation)
        found = record(media=(media,), question="Point at it.", answer=answer, task="landmark")
        assert bool(permits(dataclasses.replace(found, target=target))["flip"]) == refused


def test_boxes_inside_a_text_and_several_answers_are_not_moved():
    text = "A nucleus. <|object_ref_start|>nucleus<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>"
    solid = "nucleus [(1,2,3),(4,5,6)]"
    for said in (text, solid):
        found = record(media=(slide(),), question="Describe it.", answer=said, task="caption")
        assert permits(found)["resize"] == "answer whose coordinates cannot be moved"
    twice = dataclasses.replace(FREE, turns=(Turn("user", "Is it seen?"), Turn("assistant", "yes"), *FREE.turns))
    assert permits(twice)["crop"] == "answer whose coordinates cannot be moved"
