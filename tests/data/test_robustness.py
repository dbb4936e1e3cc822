"""Other ways of asking change what they say they change, and the truth with it; what cannot be asked so is refused."""

import dataclasses

import numpy as np
import pytest

from data_pipelines.prompts.answers import options_text
from data_pipelines.record import MEDIA_TOKEN, Turn
from data_pipelines.robustness import NotAskedError, RobustnessError, change, check_name, mirrored_words, others
from tests.data.toy_records import image, noise, record, volume
from umit_jax.targets import options_target


def asked(words, options, index=0, *, language="en", first=1, number=0, media=None):
    block = options_text(options, first, language)
    plain = record(number, language=language, media=media)
    question = MEDIA_TOKEN * len(plain.media) + f"{words}\n{block}"
    turns = (Turn("user", question), Turn("assistant", "?"))
    return dataclasses.replace(plain, turns=turns, target=options_target(options, index, first))


def nobody(_):
    return None


def question_of(changed):
    return changed.turns[-2].text.replace(MEDIA_TOKEN, "").split("\n")[0]


@pytest.mark.parametrize(
    ("language", "words", "opposite"),
    [
        ("en", "Is there a pleural effusion?", "Is there no pleural effusion?"),
        ("en", "Are there any fractures?", "Are there no fractures?"),
        ("en", "Is the heart enlarged?", "Is the heart not enlarged?"),
        ("en", "Does the image show a mass?", 'Is it false that the answer to "Does the image show a mass?" is yes?'),
        ("en", "Can a mass be seen?", "Is it impossible to see a mass?"),
        ("zh", "有肺结节吗？", "没有肺结节吗？"),
        ("zh", "心脏是否增大？", "心脏是否不增大？"),
        ("zh", "图中是否有肿块？", "图中是否没有肿块？"),
        (
            "en",
            "Is this a non-small cell carcinoma?",
            'Is it false that the answer to "Is this a non-small cell carcinoma?" is yes?',
        ),
    ],
)
def test_a_yes_no_question_becomes_its_opposite_and_so_does_its_truth(language, words, opposite):
    options = ["yes", "no"] if language == "en" else ["是", "否"]
    changed, show = change(asked(words, options, 1, language=language), "negated", 0, nobody)
    assert question_of(changed) == opposite
    assert changed.target["index"] == 0
    assert changed.turns[-1].text == ("1:yes" if language == "en" else "1：是")
    assert show is None


def test_options_move_with_their_truth():
    options = ["liver", "spleen", "kidney", "heart"]
    for number in range(8):
        before = asked("Which organ?", options, number % 4, number=number)
        changed, _ = change(before, "options", 0, nobody)
        assert sorted(changed.target["options"]) == sorted(options)
        assert changed.target["options"] != options
        assert changed.target["options"][changed.target["index"]] == options[number % 4]
        assert options_text(changed.target["options"], 1, "en") in changed.turns[-2].text
        assert change(before, "options", 0, nobody)[0] == changed


@pytest.mark.parametrize(
    ("language", "options", "expected"),
    [("en", ["left", "right"], 1), ("zh", ["右侧", "左侧"], 1), ("en", ["heart", "left lung", "Right lung"], None)],
)
def test_a_mirrored_image_has_its_answer_on_the_other_side(language, options, expected):
    index = 0 if expected is not None else 1
    before = asked("Which side?", options, index, language=language)
    if expected is None:
        with pytest.raises(NotAskedError, match="names no side"):  # spelled another way: no such option
            change(before, "flip", 0, nobody)
        return
    changed, show = change(before, "flip", 0, nobody)
    assert changed.target["index"] == expected
    frames = [noise(40, 56, 1)]
    np.testing.assert_array_equal(show(0, frames, (56, 40))[0], frames[0][:, ::-1])


def test_words_for_sides_change_places_whole():
    assert mirrored_words("Left lung, right, leftover", "en") == "Right lung, left, leftover"
    assert mirrored_words("左肺在右侧", "zh") == "右肺在左侧"


def test_blank_images_are_black_and_swapped_ones_anothers():
    before, frames = asked("Which?", ["a", "b"]), [noise(40, 56, 1)]
    _, blank = change(before, "blank", 0, nobody)
    assert blank(0, frames, (28, 56)).shape == (1, 56, 28, 3)
    assert not blank(0, frames, (28, 56)).any()
    theirs = record(5)
    _, swapped = change(before, "swap", 0, lambda _: theirs)
    np.testing.assert_array_equal(swapped(0, frames, (56, 40))[0], noise(40, 56, 5))
    deep = asked("Which?", ["a", "b"], media=(volume(6),))
    _, swapped = change(deep, "swap", 0, lambda _: record(1, media=(volume(3, seed=9),)))
    shown = swapped(0, [noise(30, 44, 0)] * 6, (44, 30))
    assert [int(np.argmin([np.abs(s - noise(30, 44, 9 + i).astype(int)).sum() for i in range(3)])) for s in shown] == [
        0, 0, 1, 1, 2, 2,
    ]  # fmt: skip


def test_a_corruption_is_the_same_every_time():
    before, frames = asked("Which?", ["a", "b"]), [noise(40, 56, 1)]
    shown = [change(before, "corrupt:gaussian_noise:5", 0, nobody)[1](0, frames, (56, 40)) for _ in range(2)]
    np.testing.assert_array_equal(*shown)
    assert np.abs(shown[0][0].astype(int) - frames[0]).mean() > 5


def test_another_patient_of_the_same_task_lends_the_image():
    records = [record(i, patient=f"p{i // 2}") for i in range(6)] + [record(9, task="report"), record(7, media=())]
    found = others(records, 0)
    assert len(found) == 6
    for i in range(6):
        partner = found["toy", "vqa", "en", f"toy/{i}"]
        assert records[partner].patient_id != records[i].patient_id
        assert partner < 6


@pytest.mark.parametrize(
    ("name", "before", "reason"),
    [
        ("blank", record(media=()), "no image"),
        ("swap", record(), "no image of another patient with the same task"),
        ("options", record(), "no options"),
        ("negated", asked("Which?", ["a", "b"]), "not a yes/no question"),
        ("negated", asked("Normal or not, please.", ["yes", "no"]), "no rule says its opposite"),
        *(
            (
                "negated",
                asked(words, ["yes", "no"] if words.isascii() else ["是", "否"], language=language),
                "already negative",
            )
            for language, words in (
                ("en", "Are there no nodules?"),
                ("en", "Is there not an effusion here?"),
                ("en", "Is the heart not enlarged?"),
                ("en", "Is the lung without consolidation?"),
                ("zh", "图中是否没有积液？"),
                ("zh", "心脏是否不增大？"),
                ("zh", "未见骨折吗？"),
            )
        ),
        ("flip", asked("Is the left one larger?", ["left", "right"]), "question that names one side"),
        (
            "flip",
            asked("Which side?", ["left", "right"], media=(dataclasses.replace(image(), orientation="PS"),)),
            "image whose rows do not run from side to side",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(name, before, reason):
    with pytest.raises(NotAskedError, match=reason):
        change(before, name, 0, nobody)


@pytest.mark.parametrize("name", ["blnk", "corrupt:gaussian_noise", "corrupt:fog:1", "corrupt:gaussian_noise:6"])
def test_an_unknown_way_is_named(name):
    with pytest.raises(RobustnessError, match=name):
        check_name(name)
    assert check_name("corrupt:gaussian_noise:3") == "corrupt:gaussian_noise:3"
