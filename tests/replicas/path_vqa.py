"""PathVQA in small: pickles in the protocols they were written with, CMYK images, and the parquet copy."""

import pickle
from pathlib import Path
from typing import Any

from tests.replicas.hub_files import write_parquet
from tests.replicas.pictures import encoded, write_file


def row(image: str, question: Any, answer: Any) -> dict[str, Any]:
    return {"image": image, "question": question, "answer": answer}


ROWS = {
    "train": [
        row("train_0001", "where are liver stem cells located here?", "in the canals of hering"),
        row("train_0001", "is fat necrosis present?", "yes"),
        row("train_0002", "how many nuclei are seen?", 2),
        row("train_0003", "is the file there?", "no"),
        row("train_0004", "is it whole?", "no"),
        row("train_0001", "", "no"),
        "no row",
    ],
    "val": [row("val_0001", "does this image show the  brain?", "No"), row("val_0001", "what?", None)],
    "test": [row("test_0001.jpg", "what is present?", "cardiovascular")],
}


def original(folder: Path) -> dict[str, Any]:
    for protocol, (split, rows) in zip((4, 2, 0), ROWS.items(), strict=True):
        write_file(folder / "split" / "qas" / split / f"{split}_qa.pkl", pickle.dumps(rows, protocol))
    images = folder / "split" / "images"
    write_file(images / "train" / "train_0001.jpg", encoded(1))
    write_file(images / "train" / "train_0002.jpg", encoded(2, mode="CMYK"))
    write_file(images / "train" / "train_0004.jpg", encoded(4)[:-60])
    write_file(images / "val" / "val_0001.jpg", encoded(5, mode="L"))
    write_file(images / "test" / "test_0001.jpg", encoded(6))
    return {"source": folder}


def hub(folder: Path) -> dict[str, Any]:
    rows = [(encoded(1), "is fat necrosis present?", "yes"), (encoded(1), "what is it?", "fat"), (None, "none?", "no")]
    write_parquet(folder / "data" / "train-00000-of-00002-ab.parquet", rows)
    write_parquet(folder / "data" / "train-00001-of-00002-ab.parquet", [(encoded(2, mode="CMYK"), "where?", "here")])
    write_parquet(folder / "data" / "validation-00000-of-00001-ab.parquet", [(encoded(3), "how many?", "3")])
    write_parquet(folder / "data" / "test-00000-of-00001-ab.parquet", [(encoded(1), "is it red?", None)])
    return {"source": folder}
