"""ChiMed-VL in small, in two forms that its files may have: texts with questions, and conversations. Images lie in a
folder with folders, or in an archive; some are missing."""

import json
import zipfile
from pathlib import Path
from typing import Any

from tests.replicas.pictures import encoded, write_file

ALIGNMENT: list[Any] = [
    {"image": "pmc/PMC1_Fig1_1.jpg", "context": "患者的CT检查。\n随访。", "description": "胸部CT。"},
    {"image": "PMC2_Fig1_1.jpg", "context": "", "description": "腹部超声。"},
    {"image": "PMC3_Fig1_1.jpg", "context": "缺图。", "description": "缺图。"},
    {"image": "PMC1_Fig1_1.jpg", "context": None, "description": "NULL"},
    {"image": "", "description": "无图像名。"},
]
INSTRUCTION: list[Any] = [
    {"image": "PMC1_Fig1_1.jpg", "question": "图中有病变吗？", "answer": "有"},
    {"image": "PMC1_Fig1_1.jpg", "question": "这是哪种检查？", "answer": "胸部CT"},
    {"image": "PMC2_Fig1_1.jpg", "question": "什么？", "answer": ""},
    {"image": "PMC4_Fig1_1.jpg", "question": "损坏？", "answer": "是"},
    "no row",
]


def texts(folder: Path) -> dict[str, Any]:
    lines = [json.dumps(row, ensure_ascii=False) for row in ALIGNMENT]
    write_file(folder / "source" / "ChiMed-VL-Alignment.jsonl", "\n".join([*lines, "{cut"]))
    write_file(folder / "source" / "ChiMed-VL-Instruction.json", json.dumps(INSTRUCTION, ensure_ascii=False))
    write_file(folder / "images" / "PMC1_Fig1_1.jpg", encoded(1))
    write_file(folder / "images" / "more" / "PMC2_Fig1_1.jpg", encoded(2, mode="CMYK"))
    write_file(folder / "images" / "more" / "PMC4_Fig1_1.jpg", encoded(4)[:-60])
    return {"source": folder / "source", "images": folder / "images"}


def talk(*said: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(said)]


TALKS: list[Any] = [
    {"id": "0", "image": "a/PMC1_Fig1_1.jpg", "conversations": talk("<image>\n描述图像。", "胸部CT。")},
    {"id": "1", "image": "a/PMC9_Fig1_1.jpg", "conversations": talk("<image>\n描述图像。", "缺图。")},
    {"id": "2", "image": "a/PMC1_Fig1_1.jpg", "conversations": talk("<image>\n描述图像。")},
]
ASKED: list[Any] = [
    {"id": "0", "image": "PMC2_Fig1_1.jpg", "conversations": talk("什么器官？\n<image>", "肝脏", "正常吗？", "正常")},
]


def conversations(folder: Path) -> dict[str, Any]:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in TALKS)
    write_file(folder / "source" / "ChiMed-VL-Alignment.jsonl", lines)
    write_file(folder / "source" / "ChiMed-VL-Instruction.json", json.dumps(ASKED, ensure_ascii=False))
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        archive.writestr("figures/PMC1_Fig1_1.jpg", encoded(1))
        archive.writestr("figures/PMC2_Fig1_1.jpg", encoded(2))
    return {"source": folder / "source", "images": folder / "images.zip"}
