"""Replica of a folder of TensorFlow Datasets: one set in both file formats, with classes, captions and boxes."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.shard_format import load_tfds

SIZE = (20, 10)  # width, height
CLASSES, OBJECTS = ["benign", "malignant", "normal"], ["nodule", "mass"]


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)


def image(number: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(number)).save(buffer, kind)
    return buffer.getvalue()


def features() -> Any:
    f = load_tfds().features
    return f.FeaturesDict({
        "image": f.Image(shape=(None, None, 3)),
        "label": f.ClassLabel(names=CLASSES),
        "caption": f.Text(),
        "file_name": f.Text(),
        "objects": f.Sequence({"bbox": f.BBoxFeature(), "label": f.ClassLabel(names=OBJECTS)}),
    })  # fmt: skip


def row(number: int, label: int, caption: str, boxes: list[Any], data: bytes | None = None) -> dict[str, Any]:
    """boxes: (class, ymin, xmin, ymax, xmax)"""
    return {"image": image(number) if data is None else data, "label": label, "caption": caption,
            "file_name": "Smith_John.png", "objects/bbox": [c for box in boxes for c in box[1:]],
            "objects/label": [box[0] for box in boxes]}  # fmt: skip


ROWS = {
    "train": [
        row(0, 0, "A small nodule.", [(0, 0.1, 0.25, 0.5, 0.75), (1, 0.0, 0.0, 1.0, 1.0), (0, 0.5, 0.5, 1.0, 1.0)]),
        row(1, 2, "", []),
        row(2, -1, "No label here.", []),
        row(3, 7, "", []),
        row(4, 1, "", [(0, 0.5, 0.5, 0.5, 0.9), (1, 0.0, 0.0, 0.5, 0.5)]),
        row(5, 1, "x", [], image(5)[:60]),
        *[row(10 + i, i % 3, "", []) for i in range(70)],  # more than one span
    ],
    "test": [row(100, 1, "Two\nlines.", [])],
    "unlabelled": [row(101, -1, "", [])],
}


def example(values: dict[str, Any]) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    message = tf_example_pb2.Example()
    for name, value in values.items():
        feature, value = message.features.feature[name], value if isinstance(value, list) else [value]
        if name == "objects/bbox":
            feature.float_list.value.extend(value)
        elif isinstance(value[0] if value else 0, int):
            feature.int64_list.value.extend(value)
        else:
            feature.bytes_list.value.extend(v.encode() if isinstance(v, str) else v for v in value)
    return message.SerializeToString(deterministic=True)


def write(folder: Path, kind: str, rows: dict[str, list[dict[str, Any]]], about: Any = None) -> Path:
    tfds = load_tfds()
    folder.mkdir(parents=True)
    infos = []
    for split, values in rows.items():
        data = [example(value) for value in values]
        half = (len(data) + 1) // 2
        parts = [part for part in (data[:half], data[half:]) if part]
        for i, part in enumerate(parts):
            _file(folder / f"scans-{split}.{kind}-{i:05d}-of-{len(parts):05d}", kind, part)
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(part) for part in parts],
                num_bytes=1,
                filename_template=tfds.core.ShardedFileTemplate(
                    data_dir=folder, dataset_name="scans", split=split, filetype_suffix=kind
                ),
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=about or features(), split_infos=infos, version=folder.name, check_data=False
    )
    return folder


def _file(path: Path, kind: str, part: list[bytes]) -> None:
    if kind == "tfrecord":
        path.write_bytes(b"".join(struct.pack("<Q4x", len(d)) + d + bytes(4) for d in part))
        return
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for data in part:
        writer.write(data)
    writer.close()


def array_record(root: Path) -> dict[str, Any]:
    write(root / "scans" / "1.0.0", "array_record", {"train": ROWS["test"]})  # an older version
    write(root / "scans" / "1.10.0", "array_record", ROWS)
    return {"source": root, "dataset": "scans", "modality": "CT", "license": "CC-BY-4.0"}


def tfrecord(root: Path) -> dict[str, Any]:
    folder = write(root / "scans" / "2.0.0", "tfrecord", {"train": ROWS["train"]})
    return {"source": folder}
