"""Training files of every form that is read, in one folder, with the rows that people's files have."""

import json
from pathlib import Path
from typing import Any

from tests.replicas.pictures import encoded, write_file

A, B = "images/a.jpg", "images/b.jpg"


def said(*texts: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def llava(*texts: str) -> list[dict[str, Any]]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def objects(kind: str | None, ref: list[str], *boxes: Any, **more: Any) -> dict[str, Any]:
    return {"ref": ref, "bbox": list(boxes), **({"bbox_type": kind} if kind else {}), **more}


SWIFT: list[Any] = [  # swift_train.jsonl; images are 60 x 40
    {"query": "<image>What is it?", "response": "A liver.", "images": [A]},
    {"query": "Is it?\n1:yes\n2:no", "response": "2:no", "images": [A]},  # no tag: the image comes first
    {"query": "<image>这是什么？\n0：肺\n1：肝", "response": "1：肝", "images": A},
    {
        "query": "And now?",
        "response": "No.",
        "history": [["<image>Before?", "Yes."]],
        "images": [B],
        "system": "Be brief.",
    },
    {"query": "<image>Both?", "response": "No.", "images": [A, B]},
    {"query": "<image>Web?", "response": "No.", "images": ["https://example.org/a.jpg"]},
    {"query": "<image>Gone?", "response": "No.", "images": ["images/gone.jpg"]},
    {"query": "<image>Empty?", "response": " ", "images": [A]},
    {"query": "Only text?", "response": "Yes."},
    {
        "query": "<image>Task?",
        "response": "A caption.",
        "images": [A],
        "task": "caption",
        "split": "dev",
        "patient": "p1",
    },
    {"query": "<image>Task?", "response": "x", "images": [A], "task": "landmark"},
    {"query": "<image>Task?", "response": "x", "images": [A], "task": "poetry"},
]
TOKENS = "<|object_ref_start|>liver<|object_ref_end|><|box_start|>(100,200),(300,400)<|box_end|>"
MESSAGES: list[Any] = [  # messages_test.jsonl
    {
        "messages": said("<image>Find <ref-object>.", "<bbox><bbox>"),
        "images": [A],
        "objects": objects("real", ["the liver"], [6, 4, 30, 20], [30, 20, 60, 40]),
    },
    {
        "messages": said("<image>\nFind all.", "<ref-object><bbox>, <ref-object><bbox>"),
        "images": [A],
        "objects": objects("norm1", ["liver", "spleen"], [0.1, 0.1, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]),
    },
    {
        "messages": said("<image><image>Point at it in the second.", "<bbox>"),
        "images": [A, {"path": B, "bytes": None}],
        "objects": objects(None, ["carina"], [30, 10], image_id=[1]),
    },
    {"messages": said("<image>Out?", "<bbox>"), "images": [A], "objects": objects("real", ["x"], [6, 4, 61, 20])},
    {"messages": said("<image>Turned?", "<bbox>"), "images": [A], "objects": objects("real", ["x"], [30, 4, 6, 20])},
    {"messages": said("<image>Few?", "<bbox>"), "images": [A], "objects": objects("real", ["x"], [1, 2, 3])},
    {"messages": said("<image>Holes?", "<bbox>"), "images": [A], "objects": objects("real", ["x"])},
    {"messages": said("<image>Words?", "At <bbox>"), "images": [A], "objects": objects("real", ["x"], [1, 2, 3, 4])},
    {"messages": said("<image>Tokens?", TOKENS), "images": [A]},
    {"messages": said("<image>Unclosed?", TOKENS[:-5]), "images": [A]},
    {"messages": [{"role": "system", "content": "S."}, *said("<image>Why?", "So.")], "images": [A]},
    {"messages": said("<image>No answer?"), "images": [A]},
    {"messages": [{"role": "tool", "content": "x"}, *said("<image>Who?", "I.")], "images": [A]},
    {"messages": [*said("<image>Not learned?"), {"role": "assistant", "content": "x", "loss": False}], "images": [A]},
    {"messages": said("<video>Moving?", "Yes."), "videos": ["a.mp4"]},
    {
        "messages": said("<image>NaN?", "<bbox>"),
        "images": [A],
        "objects": objects("real", ["x"], [1, float("nan"), 3, 4]),
    },
    {"messages": said("<image>Half a character?", "\ud83d"), "images": [A]},
    {"messages": said("<image>Whole?", "\U0001f600"), "images": ["\0"]},
    {"messages": said("<image>In <|box_start|>(300,200),(100,400)<|box_end|>?", "A liver."), "images": [A]},
    {"messages": said("<image>In <|box_start|>(300,200),(1001,400)<|box_end|>?", "A liver."), "images": [A]},
    {"messages": said("<image>Where?", TOKENS.replace("300", "100"), "Sure?", "Yes."), "images": [A]},
    {"messages": said("<image>In <|box_start|>(300,200)?", "A liver."), "images": [A]},
]
LLAVA: list[Any] = [  # llava.json
    {"id": "1", "image": "a.jpg", "conversations": llava("<image>\nWhat?", "A lung.", "Sure?", "Yes.")},
    {"id": "1", "image": "a.jpg", "conversatons": llava("What is shown?\n<image>", "漢字")},
    {"id": "2", "image": "a.jpg", "domain": {}},
    "no row",
]


def replica(folder: Path) -> dict[str, Any]:
    """Rows of two files name images below the folder, the third those of its own folder."""
    lines = [json.dumps(row, ensure_ascii=False) for row in SWIFT]
    write_file(folder / "raw" / "swift_train.jsonl", "\n".join([*lines, '{"query": "cut', ""]))
    write_file(folder / "raw" / "messages_test.jsonl", "\r\n".join(map(json.dumps, MESSAGES)))
    write_file(folder / "raw" / "llava.json", json.dumps(LLAVA, indent=1))
    write_file(folder / "raw" / "notes.txt", "not read")
    for name, seed in (("images/a.jpg", 1), ("images/b.jpg", 2), ("a.jpg", 3)):
        write_file(folder / "raw" / name, encoded(seed, width=60, height=40))
    return {"source": folder / "raw", "license": "CC-BY-4.0"}
