"""SLAKE in small: three splits in two languages, boxes with repeated names, empty lists and boxes that cannot be."""

import json
from pathlib import Path
from typing import Any

from tests.replicas.pictures import encoded, write_file

SIZE = (60, 40)


def row(qid: Any, image: int, question: str, answer: Any, **changed: Any) -> dict[str, Any]:
    return {
        "img_id": image,
        "img_name": f"xmlab{image}/source.jpg",
        "question": question,
        "answer": answer,
        "q_lang": "en",
        "location": "Abdomen",
        "modality": "MRI",
        "answer_type": "OPEN",
        "base_type": "vqa",
        "content_type": "Modality",
        "triple": ["vhead", "_", "_"],
        "qid": qid,
    } | changed


ZH = {"q_lang": "zh"}
CLOSED = {"answer_type": "CLOSED", "content_type": "Organ"}
SPLITS = {
    "train": [
        row(0, 1, "What modality is used to take this image?", "MRI"),
        row(1, 1, "图中有肝脏吗？", "没有", **ZH, **CLOSED),
        row(2, 1, "Does the picture contain liver?", "Yes", **CLOSED),
        row(3, 1, "这是脑部图像吗？", "不是", **ZH, **CLOSED),
        row(4, 2, "Which is bigger, lung or liver?", "Lung", modality="X-Ray", **CLOSED),  # closed, and not yes or no
        row(5, 2, "图中最大的器官是什么？", "肺", modality="X-Ray", **ZH, content_type="Size"),
        row(4, 1, "Same qid?", "No", **CLOSED),
        row(6, 1, "Was ist das?", "MRT", q_lang="de"),
        row(7, 1, "And the answer?", ""),
        row(8, 77, "No such image?", "No", **CLOSED),
    ],
    "validate": [row(9835, 3, "Is the heart seen?", "no", modality="CT", **CLOSED), ["no object"]],
    "test": [row(9836, 4, "图像里有异常吗？", "有", modality="CT", **ZH, **CLOSED), row(9837, 7, "?", "")],
}
BOXES = {
    1: [{"Liver": [2.0, 3.0, 10.0, 20.0]}, {"Spleen": [40.5, 4.0, 10.5, 12.0]}, {"Liver": [20.0, 3.0, 6.0, 6.0]}],
    2: [],
    3: [{"Heart": [10.0, 10.0, 60.0, 10.0]}, {"Lung": [1.0, 1.0, 0.0, 5.0]}, {"Left Lung": [0.0, 0.0, 60.0, 40.0]}],
    4: [{"Kidney": [1, 2, 3]}, {"Liver": [5, 5, 10, 10]}, {"Liver": [50, 5, 11, 10]}],
    5: [{"Liver": [5, 5, 10, 10]}],  # an image of no split
    7: [{"Lung": [float("nan"), 5, 10, 10]}, {"Heart": [5, 5, 10**400, 10]}, {"Brain": [True, 5, 10, 10]}],
}


def replica(folder: Path) -> dict[str, Any]:
    root = folder / "Slake1.0"
    for split, rows in SPLITS.items():
        write_file(root / f"{split}.json", json.dumps(rows, ensure_ascii=False))
    for image, found in BOXES.items():
        write_file(root / "imgs" / f"xmlab{image}" / "source.jpg", encoded(image, width=SIZE[0], height=SIZE[1]))
        write_file(root / "imgs" / f"xmlab{image}" / "detection.json", json.dumps(found))
    write_file(root / "imgs" / "xmlab3" / "detection.json", json.dumps(BOXES[3]))
    write_file(root / "imgs" / "xmlab6" / "question.json", "[]")
    return {"source": folder}
