"""Replica of M3D-Cap: volumes as the authors prepare them with their list, or folders of slices with their texts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PREPARED = (1, 32, 256, 256)


def array(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(0, 1, (1, 32, 8, 8)).astype(np.float32)
    return coarse.repeat(32, 2).repeat(32, 3)


def save(folder: Path, name: str, seed: int, text: str | None = "A mass in the liver.") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name}.npy", array(seed))
    if text is not None:
        (folder / "text.txt").write_text(text, encoding="utf-8")


def prepared(root: Path) -> dict[str, Any]:
    source = root / "m3d"
    case, quiz = source / "M3D_Cap_npy" / "ct_case", source / "M3D_Cap_npy" / "ct_quizze"
    save(case / "000001", "Axial_non_contrast", 1, "Normal liver.\nNo mass.")
    save(case / "000001", "Coronal_C__portal", 2, None)
    save(case / "000002", "Axial", 3, "Fracture of rib 3.")
    save(quiz / "000009", "Axial", 1, "Normal liver.")  # the volume of case 1 again, now in test
    save(case / "000003", "Axial", 4, " \n")
    save(case / "000004", "Axial", 5, None)
    save(case / "000005", "Axial", 6)
    np.save(case / "000005" / "Axial.npy", array(6)[:, :16])
    paths = {"train": ["ct_case/000001/Axial_non_contrast", "ct_case/000001/Coronal_C__portal", "ct_case/000003/Axial",
                       "ct_case/000004/Axial", "ct_case/000005/Axial", "ct_case/000006/Axial"],
             "validation": ["ct_case/000002/Axial"], "test": ["ct_quizze/000009/Axial"],
             "test100": ["ct_quizze/000009/Axial"]}  # fmt: skip
    lists = {
        split: [{"image": f"M3D_Cap_npy/{p}.npy", "text": f"M3D_Cap_npy/{p.rsplit('/', 1)[0]}/text.txt"} for p in names]
        for split, names in paths.items()
    }
    (source / "M3D_Cap.json").write_text(json.dumps(lists))
    return {"source": source}


def grey(z: int) -> np.ndarray:
    plane = np.zeros((24, 40), np.uint8)
    plane[4:20, 10:30] = 100 + z * 10  # 20 x 16 pixels of foreground
    return plane


def slices(folder: Path, numbers: Any, suffix: str = "png") -> None:
    folder.mkdir(parents=True)
    for number in numbers:
        Image.fromarray(grey(number)).convert("RGB").save(folder / f"{number}.{suffix}")


def original(root: Path) -> dict[str, Any]:
    source = root / "m3d" / "M3D_Cap"
    case = source / "ct_case"
    slices(case / "000010" / "Axial_Pöschl", range(12))
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(case / "000010" / "Axial_Pöschl" / "12.png")  # an overview
    (case / "000010" / "text.txt").write_text(
        "presentation: pain\nstudy_findings: Dense petrous bone.\nNo lesion.", encoding="utf-8"
    )
    slices(case / "000011" / "Axial", range(3), "jpeg")
    (case / "000011" / "text.txt").write_text("study_findings: \n.\ndiscussion: A typical cyst.")
    (case / "000012" / "Empty").mkdir(parents=True)
    (case / "000012" / "text.txt").write_text("Some words of a case.")
    slices(case / "000012" / "Named", range(2))
    (case / "000012" / "Named" / "1.png").rename(case / "000012" / "Named" / "last.png")
    slices(case / "000012" / "Cut", range(3))
    (case / "000012" / "Cut" / "1.png").write_bytes((case / "000012" / "Cut" / "1.png").read_bytes()[:60])
    slices(source / "ct_quizze" / "000010" / "Axial", range(2))
    return {"source": root / "m3d"}
