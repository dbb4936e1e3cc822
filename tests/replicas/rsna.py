"""Replica of the RSNA challenge: radiographs of 64 x 64 pixels, most as JPEG in DICOM, and tables with faults."""

import csv
import io
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from tests.media.dicom_files import dataset, to_bytes

SIZE = 64
NORMAL, OTHER, OPACITY = "Normal", "No Lung Opacity / Not Normal", "Lung Opacity"
# name: (rows of (x, y, width, height) or None, target, classes)
IMAGES: dict[str, tuple[list[Any], str, list[str]]] = {
    "normal": ([None], "0", [NORMAL]),
    "other": ([None], "0", [OTHER]),
    "one box": ([(10.0, 20.0, 30.0, 40.0)], "1", [OPACITY]),
    "two boxes": ([(1.0, 2.0, 3.0, 4.0), (30.5, 2.0, 33.5, 62.0)], "1", [OPACITY, OPACITY]),
    "same box twice": ([(5.0, 5.0, 9.0, 9.0)] * 2, "1", [OPACITY, OPACITY]),
    "plain dicom": ([None], "0", [NORMAL]),
    "outside": ([(10.0, 20.0, 55.0, 40.0)], "1", [OPACITY]),
    "empty box": ([(10.0, 20.0, 0.0, 40.0)], "1", [OPACITY]),
    "no numbers": ([None], "1", [OPACITY]),
    "box on negative": ([(1.0, 2.0, 3.0, 4.0)], "0", [NORMAL]),
    "odd target": ([None], "2", [NORMAL]),
    "two classes": ([None, None], "0", [NORMAL, OTHER]),
    "no class": ([None], "0", []),
    "no label": ([], "0", [NORMAL]),
    "unknown class": ([None], "0", ["Pneumonia"]),
    "disagreement": ([None], "0", [OPACITY]),
    "no file": ([None], "0", [NORMAL]),
    "cut file": ([None], "0", [NORMAL]),
    "marked": ([None], "0", [NORMAL]),
}


def image_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def pixels(name: str) -> np.ndarray:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return ((rows * 2 + columns + list(IMAGES).index(name) * 5) % 256).astype(np.uint8)


def jpeg(name: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(name)).save(buffer, "JPEG", quality=90, comment=image_id(name).encode())
    return buffer.getvalue()


def dicom(name: str) -> bytes:
    marks = {"BurnedInAnnotation": "YES"} if name == "marked" else {}
    ds = dataset(pixels(name), Modality="CR", PatientID=image_id(name), SOPClassUID="1.2.840.10008.5.1.4.1.1.7",
                 ConversionType="WSD", PixelSpacing=[0.14, 0.14], ViewPosition="PA", **marks)  # fmt: skip
    if name != "plain dicom":
        ds.PixelData = encapsulate([jpeg(name)])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    return to_bytes(ds)


def replica(root: Path) -> dict[str, Any]:
    source = root / "rsna"
    (source / "stage_2_train_images").mkdir(parents=True)
    (source / "stage_2_test_images").mkdir()
    (source / "stage_2_test_images" / f"{image_id('hidden')}.dcm").write_bytes(dicom("normal"))
    labels, classes = [], []
    for name, (boxes, target, kinds) in IMAGES.items():
        labels += [[image_id(name), *(box or ("", "", "", "")), target] for box in boxes]
        classes += [[image_id(name), kind] for kind in kinds]
        data = dicom(name)
        if name != "no file":
            path = source / "stage_2_train_images" / f"{image_id(name)}.dcm"
            path.write_bytes(data[:-700] if name == "cut file" else data)
    _table(source / "stage_2_train_labels.csv", ["patientId", "x", "y", "width", "height", "Target"], labels)
    _table(source / "stage_2_detailed_class_info.csv", ["patientId", "class"], classes)
    return {"source": source}


def _table(path: Path, columns: list[str], rows: list[list[Any]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
