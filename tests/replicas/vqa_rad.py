"""VQA-RAD in small: the JSON with its fourteen keys and its dirty rows, and the parquet copy."""

import json
from pathlib import Path
from typing import Any

from tests.replicas.hub_files import write_parquet
from tests.replicas.pictures import encoded, write_file

CASE = "https://medpix.nlm.nih.gov/case?id=0000-"


def row(qid: Any, image: int, question: str, answer: Any, **changed: Any) -> dict[str, Any]:
    return {
        "qid": qid,
        "phrase_type": "freeform",
        "qid_linked_id": "NULL",
        "image_case_url": f"{CASE}{image // 2}",
        "image_name": f"synpic{image}.jpg",
        "image_organ": "HEAD",
        "evaluation": "not evaluated",
        "question": question,
        "question_rephrase": "NULL",
        "question_relation": "NULL",
        "question_frame": "NULL",
        "question_type": "PRES",
        "answer": answer,
        "answer_type": "CLOSED",
    } | changed


ROWS = [
    row("0", 10, "Is there a mass?", "Yes"),
    row("1", 10, "Where is  it? ", "left lobe", answer_type="OPEN", question_type="POS, ABN"),
    row(2, 11, "How many lesions?", 2, answer_type="OPEN ", question_type="COUNT"),
    row("3", 10, "Is there a mass?", "Yes", phrase_type="para"),  # repeats qid 0
    row(
        "4", 11, "Is this an MRI?", "no ", answer_type="CLOSED ", phrase_type="test_freeform ", question_type="MODALITY"
    ),
    row("5", 11, "Is this an MRI?", "no", phrase_type="para"),  # leaks qid 4
    row("6", 12, "Lung or liver?", "Lung", phrase_type="test_para"),  # closed, and neither yes nor no
    row("7", 12, "What is it?", "NULL"),
    row("8", 12, "NULL", "yes"),
    row("9", 13, "Is the image there?", "yes"),  # no such file
    row("10", 14, "Is the file whole?", "yes"),  # cut short
    row("11", 12, "What split?", "none", phrase_type="NULL"),
    row("2", 12, "Same qid?", "yes"),
    row("12", 12, "Out?", "yes", image_name="../VQA_RAD Dataset Public.json"),
    row("13", 15, "Grey?", "yes.", image_case_url="NULL"),
    "not a row",
]


def original(folder: Path) -> dict[str, Any]:
    write_file(folder / "VQA_RAD Dataset Public.json", json.dumps(ROWS))
    for image in (10, 11, 12):
        write_file(folder / "VQA_RAD Image Folder" / f"synpic{image}.jpg", encoded(image))
    write_file(folder / "VQA_RAD Image Folder" / "synpic14.jpg", encoded(14)[:-60])
    write_file(folder / "VQA_RAD Image Folder" / "synpic15.jpg", encoded(15, mode="L"))
    return {"source": folder}


def hub(folder: Path) -> dict[str, Any]:
    train = [
        (encoded(10), "is there a mass?", "yes"),
        (encoded(10), "where?", "left"),
        (encoded(14)[:-60], "cut?", "no"),
    ]
    write_parquet(folder / "data" / "train-00000-of-00001-0a1b.parquet", train)
    write_parquet(folder / "data" / "test-00000-of-00001-0a1b.parquet", [(encoded(11), "how many?", "2")])
    return {"source": folder}
