"""Every record of the SLAKE replica, and every row and box that gives none."""

import pytest

from data_pipelines.preparation import prepare
from data_pipelines.sources import slake
from data_pipelines.sources.layout import LayoutError
from tests.replicas import slake as replica
from tests.replicas.reading import prepared


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return prepared("slake", replica.replica, tmp_path_factory.mktemp("slake"))


def options(index: int, *names: str) -> dict:
    return {"kind": "options", "options": list(names), "index": index, "first": 1}


def test_questions_come_out_in_both_languages(whole):
    found = {
        id.split("/")[1]: (r.split, r.language, r.topic, *(turn.text for turn in r.turns))
        for id, r in whole.records.items()
        if r.task == "vqa"
    }
    yes_no = "\n1:yes\n2:no"
    assert found == {
        "0": ("train", "en", "open/Modality", "<media>What modality is used to take this image?", "MRI"),
        "1": ("train", "zh", "closed/Organ", "<media>图中有肝脏吗？\n1：有\n2：没有", "2：没有"),
        "2": ("train", "en", "closed/Organ", f"<media>Does the picture contain liver?{yes_no}", "1:yes"),
        "3": ("train", "zh", "closed/Organ", "<media>这是脑部图像吗？\n1：是\n2：否", "2：否"),
        "4": ("train", "en", "open/Organ", "<media>Which is bigger, lung or liver?", "Lung"),
        "5": ("train", "zh", "open/Size", "<media>图中最大的器官是什么？", "肺"),
        "9835": ("validation", "en", "closed/Organ", f"<media>Is the heart seen?{yes_no}", "2:no"),
        "9836": ("test", "zh", "closed/Organ", "<media>图像里有异常吗？\n1：有\n2：没有", "1：有"),
    }
    assert whole.records["slake/3"].target == options(1, "是", "否")
    assert whole.records["slake/4"].target == {"kind": "text", "text": "Lung"}
    assert [whole.records[f"slake/{qid}"].media[0].modality for qid in (0, 4, 9835)] == ["MR", "DX", "CT"]


def test_boxes_of_one_name_are_one_answer(whole):
    found = {id: r for id, r in whole.records.items() if r.task == "detection"}
    frame = {"name": "raw", "size": [60.0, 40.0], "mm_per_unit": None}
    assert {id: (r.split, r.topic, r.target) for id, r in found.items()} == {
        "slake/boxes/xmlab1/Liver": (
            "train",
            "box/Liver",
            {
                "kind": "boxes",
                "frame": frame,
                "items": [
                    {"label": "Liver", "box": [2.0, 3.0, 12.0, 23.0]},
                    {"label": "Liver", "box": [20.0, 3.0, 26.0, 9.0]},
                ],
            },
        ),
        "slake/boxes/xmlab1/Spleen": (
            "train",
            "box/Spleen",
            {"kind": "boxes", "frame": frame, "items": [{"label": "Spleen", "box": [40.5, 4.0, 51.0, 16.0]}]},
        ),
        "slake/boxes/xmlab3/Left Lung": (
            "validation",
            "box/Left Lung",
            {"kind": "boxes", "frame": frame, "items": [{"label": "Left Lung", "box": [0.0, 0.0, 60.0, 40.0]}]},
        ),
    }
    assert all(r.topic.split("/")[1] in r.turns[0].text for r in found.values())
    assert found["slake/boxes/xmlab3/Left Lung"].turns[1].text == (
        "<|object_ref_start|>Left Lung<|object_ref_end|><|box_start|>(0,0),(1000,1000)<|box_end|>"
    )


def test_what_gives_no_record_is_listed_with_its_reason(whole):
    outside = "box outside the image, empty or inverted"
    assert whole.quarantined == {
        "train, row 6, qid 4": "no qid, or one that is used already",
        "train, row 7, qid 6": "unknown q_lang",
        "train, row 8, qid 7": "no answer",
        "train, row 9, qid 8": "image file is missing",
        "validation, row 1": "row is no object",
        "xmlab2, boxes": "no box in the image",
        "xmlab3, boxes of Heart": outside,
        "xmlab3, boxes of Lung": outside,
        "xmlab4, boxes of Kidney": "box is not four numbers",
        "xmlab4, boxes of Liver": outside,
        "xmlab5, boxes": "image without questions, so in no split",
        "test, row 1, qid 9837": "no answer",
        "xmlab7, boxes of Lung": outside,
        "xmlab7, boxes of Heart": outside,
        "xmlab7, boxes of Brain": "box is not four numbers",
        "xmlab6, boxes": "image without questions, so in no split",
    }


def test_a_language_alone_is_compared_with_its_own_published_counts(tmp_path):
    manifest = prepare(slake.converter(**replica.replica(tmp_path / "raw"), subset=["en"]), tmp_path / "out")
    assert manifest["records"] == {"train": {"vqa": 3}, "validation": {"vqa": 1}}
    assert {key: row["expected"] for key, row in manifest["unexpected_counts"].items()} == {
        "train/vqa": 4919,
        "validation/vqa": 1053,
        "test/vqa": 1061,
    }


def test_all_is_compared_with_the_published_counts(whole):
    assert whole.manifest["unexpected_counts"]["train/vqa"] == {"expected": 9835, "found": 6}
    assert whole.manifest["leaks"] == []


def test_a_missing_split_and_an_unknown_subset_are_named(tmp_path):
    source = replica.replica(tmp_path)["source"]
    with pytest.raises(LayoutError, match="--subset: expected one of en, zh, boxes, found 'fr'"):
        slake.converter(source, subset=["fr"])
    (source / "Slake1.0" / "test.json").unlink()
    with pytest.raises(LayoutError, match=r"Slake1.0: expected test.json, found"):
        slake.converter(source)
    replica.replica(tmp_path / "other")
    next((tmp_path / "other").rglob("valid*.json")).unlink()
    with pytest.raises(LayoutError, match=r"expected validate.json or validation.json, found"):
        slake.converter(tmp_path / "other")
