"""robustness.json from predictions alone: shares by hand, paired with the main answers to the same questions."""

import json

import pytest

from data_pipelines.corruptions import SEVERITIES, known_families
from data_pipelines.robustness import PLAIN, check_name
from umit_jax.eval.predictions import (
    PredictionError,
    read_predictions,
    read_variants,
    variant_files,
    variant_path,
)
from umit_jax.eval.robustness import robustness
from umit_jax.targets import options_target


def line(number, text, index=0, options=("yes", "no"), **more):
    about = {"id": f"q{number}", "task": "vqa", "dataset": "toy", "language": "en", "patient_id": f"p{number}"}
    return {**about, "text": text, "truth": options_target(list(options), index, 1), **more}


MAIN = [line(0, "1:yes"), line(1, "1:yes"), line(2, "2:no", 1), line(3, "2:no")]


def rows(name, predictions):
    found = robustness(MAIN, {name: predictions})
    return {row["metric"]: row for row in found if row["language"] == "all"}


def test_answers_that_stay_are_counted_and_accuracy_stands_beside_the_main_one():
    found = rows("blank", [line(0, "1:yes"), line(1, "2:no"), line(2, "2:no", 1)])  # the fourth is not asked
    assert found["same_answer"]["value"] == pytest.approx(2 / 3)
    assert (found["same_answer"]["better"], found["same_answer"]["n"]) == ("lower", 3)
    accuracy = found["closed_accuracy"]
    assert (accuracy["value"], accuracy["main"]) == (pytest.approx(2 / 3), 1.0)
    assert accuracy["difference"] == pytest.approx(-1 / 3)
    assert accuracy["ci95"][0] <= accuracy["value"] <= accuracy["ci95"][1]
    assert accuracy["better"] == "lower"  # without the image, a model that looks is wrong more often
    assert rows("corrupt:jpeg:1", MAIN)["same_answer"]["better"] == "higher"


def test_the_same_option_is_the_same_wherever_it_stands():
    turned = ("no", "yes")
    said = [line(0, "2:yes", 1, turned), line(1, "1:no", 1, turned), line(2, "1:no", 0, turned)]
    assert rows("options", said)["same_option"]["value"] == pytest.approx(2 / 3)


def test_an_answer_turns_with_its_question():
    found = rows("negated", [line(0, "2:no", 1), line(1, "1:yes", 1), line(2, "1:yes", 0), line(3, "1:yes", 1)])
    assert found["opposite_answer"]["value"] == pytest.approx(3 / 4)  # the last turned too, wrong both times
    assert found["both_right"]["value"] == pytest.approx(2 / 4)
    assert rows("flip", MAIN)["mirrored_answer"]["value"] == 0


def test_files_beside_the_main_one_are_read_by_name_and_those_of_another_run_refused(tmp_path):
    def write(name, predictions, **more):
        text = "".join(json.dumps({**prediction, **more}) + "\n" for prediction in predictions)
        (tmp_path / name).write_text(text, "utf-8")

    write("predictions.jsonl", MAIN, run="a")
    write("predictions.blank.jsonl", MAIN[:2], run="a", variant="blank")
    write("predictions.corrupt_jpeg_1.jsonl", MAIN, run="a", variant="corrupt:jpeg:1")
    main = tmp_path / "predictions.jsonl"
    predictions = read_predictions(main)
    found = read_variants(main, predictions)
    assert {name: len(lines) for name, lines in found.items()} == {"blank": 2, "corrupt:jpeg:1": 4}
    write("predictions.blank.jsonl", MAIN[:2], run="b", variant="blank")
    write("predictions.old.jsonl", [line(0, "1:yes")])
    own, other = variant_files(main)
    assert [path.name for path in own] == ["predictions.blank.jsonl", "predictions.corrupt_jpeg_1.jsonl"]
    assert [path.name for path in other] == ["predictions.old.jsonl"]
    with pytest.raises(PredictionError, match=r"predictions\.blank\.jsonl: not of the run that wrote"):
        read_variants(main, predictions)


def test_every_way_of_asking_has_a_file_that_is_known_again(tmp_path):
    names = [*PLAIN, *(f"corrupt:{name}:{severity}" for name in known_families() for severity in SEVERITIES)]
    paths = [variant_path(tmp_path / "predictions.jsonl", check_name(name)) for name in names]
    paths += [path.with_suffix(".left_out.json") for path in paths]
    for path in paths:
        path.touch()
    others = {"predictions.jsonl", "predictions.old.jsonl", "predictions.blank.old.jsonl", "predictions.blank.json"}
    for name in others:
        (tmp_path / name).touch()
    own, other = variant_files(tmp_path / "predictions.jsonl")
    assert set(own) == set(paths)
    assert {path.name for path in other} == {"predictions.old.jsonl", "predictions.blank.old.jsonl"}


def test_a_variant_of_an_unknown_question_is_refused():
    with pytest.raises(PredictionError, match="variant swap: id 'q9' is not among the main predictions"):
        robustness(MAIN, {"swap": [line(9, "1:yes")]})
