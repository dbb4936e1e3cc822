"""Every record of the VQA-RAD replica, and every row that gives none."""

import json

import pytest

from data_pipelines.media.raster import decode, read_image
from data_pipelines.preparation import prepare
from data_pipelines.sources import vqa_rad
from data_pipelines.sources.layout import LayoutError
from tests.replicas import vqa_rad as replica
from tests.replicas.pictures import encoded
from tests.replicas.reading import prepared

YES = {"kind": "options", "options": ["yes", "no"], "index": 0, "first": 1}
NO = YES | {"index": 1}
LISTED = "\n1:yes\n2:no"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("original")
    return root / "raw", prepared("vqa_rad", replica.original, root)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return prepared("vqa_rad", replica.hub, tmp_path_factory.mktemp("hub"))


def told(record) -> tuple:
    return record.split, record.topic, *(turn.text for turn in record.turns), record.target


def text(answer: str) -> dict:
    return {"kind": "text", "text": answer}


def test_original_rows_come_out_clean_and_in_their_split(original):
    done = original[1]
    assert {id.split("/")[1]: told(record) for id, record in done.records.items()} == {
        "0": ("train", "closed/PRES", f"<media>Is there a mass?{LISTED}", "1:yes", YES),
        "1": ("train", "open/ABN+POS", "<media>Where is it?", "left lobe", text("left lobe")),
        "2": ("train", "open/COUNT", "<media>How many lesions?", "2", text("2")),
        "13": ("train", "closed/PRES", f"<media>Grey?{LISTED}", "1:yes", YES),
        "4": ("test", "closed/MODALITY", f"<media>Is this an MRI?{LISTED}", "2:no", NO),
        "6": ("test", "open/PRES", "<media>Lung or liver?", "Lung", text("Lung")),
    }
    assert {(r.task, r.language, r.label_kind, r.license) for r in done.records.values()} == {
        ("vqa", "en", "manual", "CC0-1.0")
    }


def test_every_row_that_gives_no_record_is_listed_with_its_reason(original):
    assert original[1].quarantined == {
        "row 3, qid 3": "repeated question",
        "row 5, qid 5": "question is in the test split",
        "row 7, qid 7": "no answer",
        "row 8, qid 8": "no question",
        "row 9, qid 9": "image file is missing",
        "row 10, qid 10": "truncated or damaged image",
        "row 11, qid 11": "unknown phrase_type",
        "row 12, qid 2": "no qid, or one that is used already",
        "row 13, qid 12": "image outside the source folder",
        "row 15": "row is no object",
    }


def test_counts_are_compared_with_the_published_ones(original):
    assert original[1].manifest["unexpected_counts"] == {
        "test/vqa": {"expected": 451, "found": 2},
        "train/vqa": {"expected": 1793, "found": 4},
    }


def test_images_of_one_case_are_one_patient_and_shared_images_are_reported(original):
    done = original[1]
    patient = {id.split("/")[1]: record.patient_id for id, record in done.records.items()}
    assert patient["0"] == patient["1"] == patient["2"] == patient["4"] != patient["6"]
    assert {leak["kind"] for leak in done.manifest["leaks"]} == {"patient", "media"}
    assert not any(
        "medpix" in json.dumps(record.turns, default=str) + record.source for record in done.records.values()
    )


def test_the_jpeg_stays_as_it_was_compressed(original):
    raw, done = original
    (frame,) = done.records["vqa_rad/0"].media[0].frames
    file = raw / "VQA_RAD Image Folder" / "synpic10.jpg"
    assert frame == file.read_bytes()
    assert (decode(frame) == read_image(file)).all()


def test_the_parquet_copy_gives_its_rows(hub):
    done = hub
    assert {id: told(record) for id, record in done.records.items()} == {
        "vqa_rad/train/0": ("train", "closed/is", f"<media>is there a mass?{LISTED}", "1:yes", YES),
        "vqa_rad/train/1": ("train", "open/where", "<media>where?", "left", text("left")),
        "vqa_rad/test/0": ("test", "open/how", "<media>how many?", "2", text("2")),
    }
    assert done.quarantined == {"train, row 2": "truncated or damaged image"}
    assert done.records["vqa_rad/train/0"].media[0].frames == (encoded(10),)
    assert done.records["vqa_rad/train/0"].patient_id == done.records["vqa_rad/train/1"].patient_id


def test_a_folder_without_either_layout_says_what_is_there(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(LayoutError, match=r"expected VQA_RAD Dataset Public.json or data/\*.parquet, found readme.txt"):
        vqa_rad.converter(tmp_path)


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / vqa_rad.JSON).write_text("[{")
    with pytest.raises(LayoutError, match=r"Public.json: no JSON"):
        prepare(vqa_rad.converter(tmp_path), tmp_path / "out")
