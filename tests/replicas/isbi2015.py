"""Replica of ISBI 2015: eleven cephalograms, some without what they need, one folder deeper as in the archive."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (1935, 2400)
IMAGES = {"TrainingData": ("001", "002", "003", "004", "005", "006", "007", "008"), "Test1Data": ("151",),
          "Test2Data": ("301", "302")}  # fmt: skip


def points(number: str, annotator: str) -> list[tuple[int, int]]:
    rng = np.random.default_rng([int(number), len(annotator), annotator == "junior"])
    return [(int(x), int(y)) for x, y in rng.integers((0, 0), SIZE, (19, 2))]


def lines(number: str, annotator: str) -> list[str]:
    return [f"{x},{y}" for x, y in points(number, annotator)] + ["1", "2", "1", "3", "1", "1", "2", "1"]


def replica(root: Path) -> dict[str, Any]:
    source = root / "cephalometric"
    for folder, numbers in IMAGES.items():
        (source / "RawImage" / folder).mkdir(parents=True)
        for number in numbers:
            grey = Image.new("L", SIZE, int(number) % 200)
            grey.paste(255, (0, 0, 100 + int(number), 300))
            grey.convert("RGB" if number != "151" else "L").save(source / "RawImage" / folder / f"{number}.bmp")
            for annotator in ("junior", "senior"):
                path = source / "AnnotationsByMD" / f"400_{annotator}" / f"{number}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes("\r\n".join(lines(number, annotator)).encode())
    spoil(source)
    return {"source": root}


def spoil(source: Path) -> None:
    junior, training = source / "AnnotationsByMD" / "400_junior", source / "RawImage" / "TrainingData"
    (junior / "002.txt").unlink()
    (junior / "003.txt").write_text("\n".join(lines("003", "junior")[:7]))
    (junior / "004.txt").write_text("\n".join(["12;30", *lines("004", "junior")[1:]]))
    (junior / "005.txt").write_text("\n".join(["9000,100", *lines("005", "junior")[1:]]))  # sella leaves the image
    Image.new("L", (800, 600)).save(training / "006.bmp")
    (training / "007.bmp").write_bytes((training / "007.bmp").read_bytes()[:5000])
    (training / "Thumbs.db").write_bytes(b"not an image")
