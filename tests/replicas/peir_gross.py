"""PEIR Gross in small, crawled not quite to the end: captions, the official split and most of the images."""

import json
from pathlib import Path
from typing import Any

from tests.replicas.pictures import encoded, write_file

CAPTIONS = [
    ("101.jpg", "HEART: Myocardial infarction ,  old scar"),
    ("102.jpg", "LIVER: Cirrhosis."),
    ("103.jpg", "not crawled"),
    ("101.jpg", "HEART: Listed a second time."),
    ("104.jpg", "in no list"),
    ("105.jpg", ""),
    ("106.jpg", "in both lists"),
    ("107.jpg", "KIDNEY: Cut short."),
    ("108.jpg", "BRAIN: In CMYK."),
]
TRAIN, TEST = ("101.jpg", "103.jpg", "105.jpg", "106.jpg", "107.jpg", "109.jpg"), ("102.jpg", "106.jpg", "108.jpg")


def replica(folder: Path) -> dict[str, Any]:
    root = folder / "peir_gross"
    write_file(root / "peir_gross.tsv", "".join(f"{name}\t{text}\n" for name, text in CAPTIONS) + "\nno tab\n")
    texts = dict(CAPTIONS) | {"109.jpg": "SPLEEN: Only in the list."}
    write_file(root / "train_images.tsv", "".join(f"{name}\t{texts[name]}\n" for name in TRAIN))
    write_file(root / "test_images.tsv", "".join(f"{name}\n" for name in TEST))
    for number in (101, 102, 104, 105, 106, 109):
        write_file(root / "peir_gross_images" / f"{number}.jpg", encoded(number))
    write_file(root / "peir_gross_images" / "107.jpg", encoded(107)[:-60])
    write_file(root / "peir_gross_images" / "108.jpg", encoded(108, mode="CMYK"))
    return {"source": folder}


def without_lists(folder: Path) -> dict[str, Any]:
    write_file(folder / "peir_gross_captions.json", json.dumps(dict(CAPTIONS[:2])))
    for number in (101, 102):
        write_file(folder / "peir_gross_images" / f"{number}.jpg", encoded(number))
    return {"source": folder}
