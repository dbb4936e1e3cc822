"""Replica of M3D-VQA: tables of questions about volumes as M3D-Cap is prepared, kept in a folder of their own."""

import csv
from pathlib import Path
from typing import Any

from tests.replicas.m3d_cap import save

HEADER = ["Image Path", "Text", "Question Type", "Question", "Choice A", "Choice B", "Choice C", "Choice D", "Answer",
          "Answer Choice"]  # fmt: skip
FIRST, SECOND = (f"M3D_Cap_npy/ct_case/00000{i}/Axial.npy" for i in (1, 2))
PLANES = ["axial", "coronal", "sagittal", "oblique"]


def row(image: str, kind: Any, question: str, choices: list[str], answer: str, letter: str) -> list[Any]:
    return [image, 'A "quoted"\ntext, of two lines', kind, question, *choices, answer, letter]


TRAIN = [
    row(FIRST, 1, "Which plane is this?", PLANES, "axial", "A"),
    row(FIRST, 2.0, "Which phase?", ["None", "arterial", "portal", "delayed"], "None", "A"),
    row(FIRST, 3, "Which organ?", ["liver", "spleen", "", ""], "Spleen.", "B"),
    row(SECOND, 4, "What is abnormal?", ["cyst", "mass", "stone", "air"], "mass", "b"),
    row(SECOND, 5, "Where, on\nthis side?", ["left", "right", "both", "neither"], "neither", "D"),
    row(FIRST, 6, "What now?", PLANES, "axial", "A"),
    row(FIRST, 1, "", PLANES, "axial", "A"),
    row(FIRST, 1, "Which plane is this?", PLANES, "coronal", "A"),
    row(FIRST, 1, "Which plane is this?", PLANES, "axial", "E"),
    row(FIRST, 1, "Which plane is this?", ["axial", "Axial", "sagittal", "oblique"], "axial", "A"),
    row(FIRST.replace("000001", "000099"), 1, "Which plane is this?", PLANES, "axial", "A"),
    row(FIRST, 1, "Which plane is this?", PLANES, "axial", "A")[:-1],
    row("../../../etc/passwd", 1, "Which plane is this?", PLANES, "axial", "A"),
    *[row(SECOND, 1, f"Which plane is number {i}?", PLANES, PLANES[i % 4], "ABCD"[i % 4]) for i in range(20)],
]
VAL = [row(SECOND, 1, "Which plane?", PLANES, "sagittal", "C")]
TEST = [row(FIRST, 3, "Which organ is this?", ["heart", "lung", "liver", "colon"], "lung", "B")]
YN = [[FIRST, "text", 4, "Is there a mass?", "Yes"], [FIRST, "text", 4, "Any air?", "no"], [FIRST, "text", 4, "x?", ""]]


def table(path: Path, rows: list[Any], header: list[str] = HEADER) -> None:
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([header, *rows])


def replica(root: Path) -> dict[str, Any]:
    source, images = root / "M3D-VQA", root / "M3D-Cap"
    (source / "M3D_VQA").mkdir(parents=True)
    for i in (1, 2):
        save(images / "M3D_Cap_npy" / "ct_case" / f"00000{i}", "Axial", i)
    for part, rows in {"train": TRAIN, "val": VAL, "test": TEST, "test5k": TEST}.items():
        table(source / "M3D_VQA" / f"M3D_VQA_{part}.csv", rows)
    header = ["Image Path", "Text", "Question Type", "Question", "Answer"]
    table(source / "M3D_VQA" / "M3D_VQA_yn_train.csv", YN, header)
    return {"source": source, "images": images}
