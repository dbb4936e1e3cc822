"""Every question of the M3D-VQA replica with its choices, and every row that is refused."""

import pytest

from data_pipelines.sources.layout import LayoutError
from data_pipelines.sources.m3d_vqa import converter
from tests.replicas import m3d_vqa
from tests.replicas.reading import prepared


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("m3d_vqa")
        patch.setenv("UMIT_CACHE", str(root / "umit_cache"))
        return prepared("m3d_vqa", m3d_vqa.replica, root)


def test_every_question_is_closed_with_its_choices_from_one(whole):
    train = ["1:axial", "1:None", "2:spleen", "2:mass", "4:neither"]
    wanted = {f"m3d_vqa/train/{i + 1}": ("train", "vqa", "en", answer) for i, answer in enumerate(train)}
    for i in range(20):
        answer = f"{i % 4 + 1}:{m3d_vqa.PLANES[i % 4]}"
        wanted[f"m3d_vqa/train/{i + 14}"] = ("train", "vqa", "en", answer)
    wanted["m3d_vqa/val/1"] = ("validation", "vqa", "en", "3:sagittal")
    wanted["m3d_vqa/test/1"] = ("test", "vqa", "en", "2:lung")
    assert whole.said() == wanted


def test_questions_choices_and_topics_are_those_of_the_row(whole):
    organ = whole.records["m3d_vqa/train/3"]
    assert organ.turns[0].text.endswith("Which organ?\n1:liver\n2:spleen")
    assert organ.target == {"kind": "options", "options": ["liver", "spleen"], "index": 1, "first": 1}
    assert organ.media[0].size == (256, 256, 32)
    assert (
        whole.records["m3d_vqa/train/5"]
        .turns[0]
        .text.endswith("Where, on this side?\n1:left\n2:right\n3:both\n4:neither")
    )
    topics = [whole.records[f"m3d_vqa/train/{i}"].topic for i in range(1, 6)]
    assert topics == ["closed/plane", "closed/phase", "closed/organ", "closed/abnormality", "closed/location"]


def test_what_cannot_be_used_is_counted_by_reason(whole):
    assert whole.quarantined == {
        "m3d_vqa/train/6": "question type is not 1 to 5",
        "m3d_vqa/train/7": "no question",
        "m3d_vqa/train/8": "answer is not the choice that it names",
        "m3d_vqa/train/9": "answer names no choice",
        "m3d_vqa/train/10": "choices repeat",
        "m3d_vqa/train/11": "image file is missing",
        "m3d_vqa/train/12": "row of another number of columns",
        "m3d_vqa/train/13": "image outside the source folder",
    }


def test_one_case_is_one_patient_and_its_leak_is_reported(whole):
    assert {leak["kind"] for leak in whole.manifest["leaks"]} == {"patient", "media"}
    assert len({record.patient_id for record in whole.records.values()}) == 2


def test_yes_no_questions_and_the_short_test_are_there_on_request(tmp_path):
    found = prepared("m3d_vqa", m3d_vqa.replica, tmp_path, subset=("yn_train", "test5k"))
    assert found.said() == {
        "m3d_vqa/yn_train/1": ("train", "vqa", "en", "1:yes"),
        "m3d_vqa/yn_train/2": ("train", "vqa", "en", "2:no"),
        "m3d_vqa/test5k/1": ("test", "vqa", "en", "2:lung"),
    }
    assert found.quarantined == {"m3d_vqa/yn_train/3": "no answer"}
    assert found.manifest["unexpected_counts"] == {}


def test_tables_are_cut_between_rows_and_not_in_quoted_line_breaks(tmp_path):
    units = converter(**m3d_vqa.replica(tmp_path)).units()
    assert [(unit.part, unit.row) for unit in units] == [
        ("train", 1), ("train", 17), ("train", 33), ("val", 1), ("test", 1)
    ]  # fmt: skip


def test_wrong_folders_and_columns_are_named(tmp_path):
    with pytest.raises(LayoutError, match=r"no M3D_VQA_\*\.csv"):
        converter(tmp_path)
    options = m3d_vqa.replica(tmp_path)
    (options["source"] / "M3D_VQA" / "M3D_VQA_val.csv").write_text("Image,Question\n")
    with pytest.raises(LayoutError, match=r"M3D_VQA_val\.csv: expected columns Image Path, .* found Image, Question"):
        converter(**options).units()
