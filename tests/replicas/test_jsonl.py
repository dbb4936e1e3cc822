"""Every row of the replica's training files: what it becomes, or why it does not."""

import json
import re

import pytest

from data_pipelines.preparation import prepare
from data_pipelines.sources import jsonl
from data_pipelines.sources.conversations import listed_options, read_talk
from data_pipelines.sources.folder import split_of
from data_pipelines.sources.layout import LayoutError
from data_pipelines.sources.make import RowError
from tests.replicas import jsonl as replica
from tests.replicas.pictures import encoded, write_file
from tests.replicas.reading import prepared


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return prepared("jsonl", replica.replica, tmp_path_factory.mktemp("jsonl"))


def told(done, file: str) -> dict[int, tuple]:
    rows = {int(id.rsplit("/", 1)[1]): r for id, r in done.records.items() if id.startswith(f"jsonl/{file}/")}
    return {n: (r.split, r.task, r.language, len(r.media), *(turn.text for turn in r.turns)) for n, r in rows.items()}


def reasons(done, file: str) -> dict[int, str]:
    found = {id.split(", row ")[1]: why for id, why in done.quarantined.items() if id.startswith(file)}
    return {int(n): why for n, why in found.items()}


def test_query_and_response(whole):
    assert told(whole, "swift_train.jsonl") == {
        0: ("train", "vqa", "en", 1, "<media>What is it?", "A liver."),
        1: ("train", "vqa", "en", 1, "<media>Is it?\n1:yes\n2:no", "2:no"),
        2: ("train", "classification", "zh", 1, "<media>这是什么？\n0：肺\n1：肝", "1：肝"),
        3: ("train", "vqa", "en", 1, "Be brief.\n<media>Before?", "Yes.", "And now?", "No."),
        8: ("train", "vqa", "en", 0, "Only text?", "Yes."),
        9: ("validation", "caption", "en", 1, "<media>Task?", "A caption."),
    }
    records = whole.records
    options = {"kind": "options", "options": ["yes", "no"], "index": 1, "first": 1}
    assert records["jsonl/swift_train.jsonl/1"].target == options
    assert records["jsonl/swift_train.jsonl/2"].target == options | {"options": ["肺", "肝"], "first": 0}
    assert records["jsonl/swift_train.jsonl/3"].target == {"kind": "text", "text": "No."}
    assert records["jsonl/swift_train.jsonl/3"].media[0].frames == (encoded(2, width=60, height=40),)
    assert reasons(whole, "swift_train.jsonl") == {
        4: "number of <image> tags and of images differ",
        5: "image is an address, not a file",
        6: "image file is missing",
        7: "empty turn",
        10: "task and answer do not fit",
        11: "unknown task",
        12: "row is no JSON object",
    }


def box(label: str, *corners: float) -> dict:
    return {"label": label, "box": list(corners)}


def frame(name: str, *size: float) -> dict:
    return {"name": name, "size": list(size), "mm_per_unit": None}


def test_objects_become_boxes_and_points(whole):
    found = told(whole, "messages_test.jsonl")
    first = (
        "<|object_ref_start|>the liver<|object_ref_end|><|box_start|>(100,100),(500,500)<|box_end|>"
        "<|object_ref_start|>the liver<|object_ref_end|><|box_start|>(500,500),(1000,1000)<|box_end|>"
    )
    assert found[0] == ("test", "detection", "en", 1, "<media>Find the liver.", first)
    assert found[1][4] == "<media>Find all."
    assert found[2] == ("test", "landmark", "en", 2, "<media><media>Point at it in the second.", "[30,10]")
    assert found[8][1:] == ("detection", "en", 1, "<media>Tokens?", replica.TOKENS)
    assert found[10] == ("test", "vqa", "en", 1, "S.\n<media>Why?", "So.")
    assert sorted(found) == [0, 1, 2, 8, 10]
    target = {n: whole.records[f"jsonl/messages_test.jsonl/{n}"].target for n in (0, 1, 2, 8)}
    raw = frame("raw", 60.0, 40.0)
    assert target[0]["items"] == [box("the liver", 6.0, 4.0, 30.0, 20.0), box("the liver", 30.0, 20.0, 60.0, 40.0)]
    assert target[1] == {
        "kind": "boxes",
        "frame": raw,
        "items": [box("liver", 6.0, 4.0, 30.0, 20.0), box("spleen", 30.0, 20.0, 60.0, 40.0)],
    }
    assert target[2] == {"kind": "points", "frame": raw, "items": [{"label": "carina", "point": [30.0, 10.0]}]}
    assert target[8]["items"] == [box("liver", 100.0, 200.0, 300.0, 400.0)]
    assert target[8]["frame"] == frame("norm1000", 1000.0, 1000.0)


@pytest.mark.parametrize(
    ("answer", "row", "reason"),
    [
        ({"loss_scale": 1.0, "loss": True}, {}, None),
        ({"loss_scale": None}, {"rejected_response": None}, None),
        ({"loss_scale": 0}, {}, "answer that is not to be learned (loss_scale)"),
        ({"loss_scale": 0.0}, {}, "answer that is not to be learned (loss_scale)"),
        ({"loss": False}, {}, "answer that is not to be learned (loss)"),
        ({"loss_scale": 0.3}, {}, "loss_scale is neither 0 nor 1"),
        ({"loss_scale": "1"}, {}, "loss_scale is neither 0 nor 1"),
        ({"loss": [1]}, {}, "loss is neither 0 nor 1"),
        ({}, {"rejected_response": "No."}, "has a rejected answer, for learning preferences"),
        ({}, {"rejected_messages": replica.said("Why?", "No.")}, "has a rejected answer, for learning preferences"),
    ],
)
@pytest.mark.parametrize("turn", [1, 3])
def test_answers_that_are_not_simply_learned_are_refused(turn, answer, row, reason):
    messages = replica.said("Why?", "So.", "And?", "Too.")
    messages[0]["loss_scale"] = 0  # of a question, which nothing learns
    messages[turn] |= answer
    if reason is None:
        assert [said.text for said in read_talk({"messages": messages} | row).turns] == ["Why?", "So.", "And?", "Too."]
    else:
        with pytest.raises(RowError, match=re.escape(reason)):
            read_talk({"messages": messages} | row)


def test_messages_that_cannot_be_used_are_listed(whole):
    outside = "box outside the image, empty or inverted"
    assert reasons(whole, "messages_test.jsonl") == {
        3: outside,
        4: outside,
        5: "box is not two or four numbers",
        6: "more holes than objects",
        7: "words between the boxes of an answer",
        9: "boxes of the answer cannot be read",
        11: "turns are not question and answer in turn",
        12: "unknown role",
        13: "answer that is not to be learned (loss)",
        14: "has video or audio",
        15: outside,
        16: "text is no Unicode",
        17: "image file is missing",
        18: outside,
        19: outside,
        20: outside,
        21: outside,
    }


def test_llava_conversations_under_both_spellings(whole):
    split = split_of("a.jpg", 0)
    assert told(whole, "llava.json") == {
        0: (split, "vqa", "en", 1, "<media>What?", "A lung.", "Sure?", "Yes."),
        1: (split, "vqa", "zh", 1, "What is shown?<media>", "漢字"),
    }
    assert reasons(whole, "llava.json") == {
        2: "no messages, conversations, or query and response",
        3: "row is no JSON object",
    }


def test_one_file_with_its_images_elsewhere_and_a_task(tmp_path):
    write_file(tmp_path / "pictures" / "a.jpg", encoded(1))
    file = write_file(tmp_path / "raw" / "x.jsonl", json.dumps(replica.LLAVA[1]))
    made = jsonl.converter(file, images=tmp_path / "pictures", task="caption")
    manifest = prepare(made, tmp_path / "out")
    assert manifest["records"] == {split_of("a.jpg", 0): {"caption": 1}}
    assert manifest["licenses"] == {"unspecified": 1}


def test_an_unknown_task_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(LayoutError, match="--task: expected one of vqa, report"):
        jsonl.converter(tmp_path, task="poetry")
    with pytest.raises(LayoutError, match=r"expected \*.jsonl or \*.json, found nothing"):
        jsonl.converter(tmp_path)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("1:yes", "1:yes"),
        ("2:yes\n3:no", "2:yes"),
        ("1:a\n3:b", "1:a"),
        ("1:a\n2:a", "1:a"),
        ("1:a\n2:b", "1:b"),
        ("", ""),
    ],
)
def test_what_is_no_list_of_options_stays_text(question, answer):
    assert listed_options(question, answer) is None
