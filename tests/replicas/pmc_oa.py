"""PMC-OA in small: the beta (captions of whole figures, images in a zip) and the aligned file (parts of captions,
images in a folder), with rows out of order, rows that are none and images that are missing."""

import json
import zipfile
from pathlib import Path
from typing import Any

from tests.replicas.pictures import encoded, write_file

FOLDER = "caption_T060_filtered_top4_sep_v0_subfigures"
FIRST = "Axial CT of the chest before treatment. A mass is seen in the left lung (arrow)."
SECOND = "Follow-up of the same patient. Axial CT of the chest after treatment."
THIRD = "Western blot."
BETA = [
    ("PMC111_Fig1_1.jpg", FIRST),
    ("PMC222_Fig1_1.jpg", "Photograph of the hand."),
    ("PMC111_Fig1_2.jpg", FIRST),
    ("PMC111_Fig2_1.jpg", SECOND),
    ("PMC111_Fig3_1.jpg", "Not in the archive."),
    ("PMC222_Fig2_1.jpg", THIRD),
    ("PMC222_Fig2_2.jpg", THIRD),
    ("PMC222_Fig2_3.jpg", THIRD),
    ("PMC222_Fig2_4.jpg", THIRD),
    ("PMC333_Fig1_1.jpg", ""),
    ("PMC333_Fig1_1.jpg", "Listed again, with a caption."),
    ("PMC333_Fig1_1.jpg", "And once more."),
    ("odd name.jpg", "An image whose name says nothing."),
    ("PMC444_Fig1_1.jpg", "Cut short."),
]


def rows(pairs: list[tuple[str, str]], **more: Any) -> str:
    return "".join(json.dumps({"image": image, "caption": caption} | more) + "\n" for image, caption in pairs)


def beta(folder: Path) -> dict[str, Any]:
    odd = rows([("PMC9_Fig1_1.jpg", "half \ud83d"), ("PMC9_\0_1.jpg", "no name"), ("x" * 999 + ".jpg", "too long")])
    text = rows(BETA[:3]) + "\n[1, 2]\n" + rows(BETA[3:]) + odd + '{"image": "PMC1_Fig1_1.jpg", "caption": "no end'
    write_file(folder / "pmc_oa_beta.jsonl", text)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        archive.writestr(f"{FOLDER}/", b"")
        for i, name in enumerate(dict.fromkeys(name for name, _ in BETA)):
            if name != "PMC111_Fig3_1.jpg":
                data = encoded(i)[:-60] if name.startswith("PMC444") else encoded(i)
                kind = zipfile.ZIP_DEFLATED if i % 2 else zipfile.ZIP_STORED
                archive.writestr(f"{FOLDER}/{name}", data, kind)
    return {"source": folder}


ALIGNED = [
    ("PMC555_Fig1_1.jpg", "Axial T2-weighted image shows the lesion. Patient A."),
    ("PMC555_Fig1_2.jpg", "Coronal T2-weighted image shows the lesion. Patient A."),
    ("PMC555_Fig1_3.jpg", "Histology."),
    ("PMC666_Fig1_1.jpg", "Ultrasound."),
    ("PMC666_Fig1_2.jpg", "Gone."),
]


def aligned(folder: Path) -> dict[str, Any]:
    write_file(folder / "pmc_oa.jsonl", rows(ALIGNED, alignment_type="fulltext", alignment_score=0.9))
    for i, (name, _) in enumerate(ALIGNED[:-1]):
        write_file(folder / FOLDER / name, encoded(i))
    return {"source": folder}
