"""Peak memory of preparing so many inputs of a data set's layout, and ten times as many.

Small sets are written in raw layouts, all of distinct images of 15 kB or volumes of 8 MB, so that whatever is held for
longer than a record shows. Each is prepared in one process forked from one that has imported everything; its peak is
what it adds to that. The last column is the growth an input. The writer of a shard keeps up to some 25 MB before it
writes, so the smaller set should be larger than that (--inputs 2000) where nothing else is to be seen.

    python benchmarks/converters.py [--inputs 100] [NAME ...]
"""

import argparse
import csv
import importlib
import json
import os
import pickle
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data_pipelines.preparation import prepare
from tests.media.dicom_files import write as dicom_bytes
from tests.replicas import hub_files, isbi2015, iu_xray, m3d_cap, m3d_seg, m3d_vqa, path_vqa, tfds, vqa_rad
from tests.replicas.pictures import write_file

SIDE = 128
VOLUMES = 10  # inputs of a set of images to one of a set of volumes


def noise(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(60, 180, (SIDE, SIDE), dtype=np.uint8)


class Pictures:
    """Distinct JPEG files, written once and linked into every set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, i: int) -> Path:
        path = self.folder / f"{i}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(i)).convert("RGB").save(path, quality=92)
        return path

    def link(self, i: int, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(self.file(i), path)


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(path: Path, rows: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)


def vqa_rad_json(folder: Path, n: int, pictures: Pictures) -> dict[str, Any]:
    rows = [vqa_rad.row(str(i), i, f"Is number {i} there?", "Yes") for i in range(n)]
    write_file(folder / "VQA_RAD Dataset Public.json", json.dumps(rows))
    for i in range(n):
        pictures.link(i, folder / "VQA_RAD Image Folder" / f"synpic{i}.jpg")
    return {"source": folder}


def parquet(folder: Path, n: int, pictures: Pictures) -> dict[str, Any]:
    rows = [(pictures.file(i).read_bytes(), f"is number {i} there?", "yes") for i in range(n)]
    hub_files.write_parquet(folder / "data" / "train-00000-of-00001-ab.parquet", rows, group=20)
    hub_files.write_parquet(folder / "data" / "test-00000-of-00001-ab.parquet", rows[:2])
    return {"source": folder}


def path_vqa_pickles(folder: Path, n: int, pictures: Pictures) -> dict[str, Any]:
    for split, count in (("train", n), ("val", 1), ("test", 1)):
        rows = [path_vqa.row(f"{split}_{i:04d}", f"is number {i} there?", "yes") for i in range(count)]
        write_file(folder / "split" / "qas" / split / f"{split}_qa.pkl", pickle.dumps(rows))
        for i in range(count):
            pictures.link(i, folder / "split" / "images" / split / f"{split}_{i:04d}.jpg")
    return {"source": folder}


def slake(folder: Path, n: int, pictures: Pictures) -> dict[str, Any]:
    row = {"q_lang": "en", "modality": "MRI", "content_type": "Organ", "answer": "Liver"}
    rows = [row | {"img_name": f"xmlab{i}/source.jpg", "qid": i, "question": f"Which organ is {i}?"} for i in range(n)]
    for name, part in (("train", rows), ("validate", []), ("test", [])):
        write_file(folder / f"{name}.json", json.dumps(part))
    for i in range(n):
        pictures.link(i, folder / "imgs" / f"xmlab{i}" / "source.jpg")
        write_file(folder / "imgs" / f"xmlab{i}" / "detection.json", json.dumps([{"Liver": [5, 5, 50, 60]}]))
    return {"source": folder}


def rsna(folder: Path, n: int, _: Pictures) -> dict[str, Any]:
    names = [f"{i:08d}-0000-0000-0000-000000000000" for i in range(n)]
    table(folder / "stage_2_train_labels.csv", [["patientId", "x", "y", "width", "height", "Target"],
          *([name, 5, 5, 40, 50, 1] for name in names)])  # fmt: skip
    table(folder / "stage_2_detailed_class_info.csv", [["patientId", "class"], *([n, "Lung Opacity"] for n in names)])
    for i, name in enumerate(names):
        data = dicom_bytes(noise(i), Modality="CR", PatientID=name)
        write_file(folder / "stage_2_train_images" / f"{name}.dcm", data)
    return {"source": folder}


def r2gen(folder: Path, n: int, pictures: Pictures) -> dict[str, Any]:
    rows = [iu_xray.study(f"CXR{i}_IM-0001", f"Report {i}.", f"CXR{i}_IM-0001/0.png") for i in range(n)]
    write_file(folder / "iu_xray" / "annotation.json", json.dumps({"train": rows, "val": [], "test": []}))
    for i in range(n):
        pictures.link(i, folder / "iu_xray" / "images" / f"CXR{i}_IM-0001" / "0.png")
    return {"source": folder}


def openi(folder: Path, n: int, pictures: Pictures) -> dict[str, Any]:
    for i in range(n):
        name = f"CXR{i}_IM-0001-1001"
        report = iu_xray.xml([name], FINDINGS=f"Report {i}.", IMPRESSION="Normal.")
        write_file(folder / "ecgen-radiology" / f"{i}.xml", report)
        pictures.link(i, folder / "NLMCXR_png" / f"{name}.png")
    return {"source": folder}


def peir_gross(folder: Path, n: int, pictures: Pictures) -> dict[str, Any]:
    write_file(folder / "peir_gross.tsv", "".join(f"{i}.jpg\tLIVER: number {i}.\n" for i in range(n)))
    for i in range(n):
        pictures.link(i, folder / "peir_gross_images" / f"{i}.jpg")
    return {"source": folder}


def cephalograms(folder: Path, n: int, _: Pictures) -> dict[str, Any]:
    for i in range(1, n + 1):
        name = f"{i:03d}"
        (folder / "RawImage" / "TrainingData").mkdir(parents=True, exist_ok=True)
        Image.new("L", isbi2015.SIZE, i).save(folder / "RawImage" / "TrainingData" / f"{name}.bmp")
        for who in ("junior", "senior"):
            write_file(folder / "AnnotationsByMD" / f"400_{who}" / f"{name}.txt", "\n".join(isbi2015.lines(name, who)))
    return {"source": folder}


def pmc_oa(folder: Path, n: int, pictures: Pictures) -> dict[str, Any]:
    rows = [{"image": f"PMC{i // 4}_Fig{i % 4 + 1}_1.jpg", "caption": f"Axial CT {i} of the chest."} for i in range(n)]
    write_file(folder / "pmc_oa_beta.jsonl", lines(rows))
    for i, row in enumerate(rows):
        pictures.link(i, folder / "caption_T060_filtered_top4_sep_v0_subfigures" / row["image"])
    return {"source": folder}


def chimed_vl(folder: Path, n: int, pictures: Pictures) -> dict[str, Any]:
    rows = [{"image": f"PMC{i}_Fig1_1.jpg", "context": "", "description": f"图{i}"} for i in range(n)]
    write_file(folder / "source" / "ChiMed-VL-Alignment.jsonl", lines(rows))
    asked = [{"image": f"PMC{i}_Fig1_1.jpg", "question": f"图{i}？", "answer": "有"} for i in range(n)]
    write_file(folder / "source" / "ChiMed-VL-Instruction.json", json.dumps(asked))
    for i in range(n):
        pictures.link(i, folder / "images" / f"PMC{i}_Fig1_1.jpg")
    return {"source": folder / "source", "images": folder / "images"}


def jsonl(folder: Path, n: int, pictures: Pictures) -> dict[str, Any]:
    write_file(folder / "a_train.jsonl", lines(
        [{"query": f"<image>What is {i}?", "response": "A lung.", "images": [f"{i}.jpg"]} for i in range(n)]
    ))  # fmt: skip
    for i in range(n):
        pictures.link(i, folder / f"{i}.jpg")
    return {"source": folder}


def medmnist_npz(folder: Path, n: int, _: Pictures) -> dict[str, Any]:
    arrays = {}
    for split, count in (("train", n), ("val", 1), ("test", 1)):
        arrays[f"{split}_images"] = np.stack([noise(i) for i in range(count)])
        arrays[f"{split}_labels"] = np.zeros((count, 1), np.uint8)
    folder.mkdir(parents=True)
    np.savez(folder / "pneumoniamnist_128.npz", **arrays)
    return {"source": folder, "cache": folder.parent / "cache"}


def tfds_records(folder: Path, n: int, pictures: Pictures) -> dict[str, Any]:
    rows = [tfds.row(i, i % 3, "", [], pictures.file(i).read_bytes()) for i in range(n)]
    (folder / "scans").mkdir(parents=True)
    tfds.write(folder / "scans" / "1.0.0", "array_record", {"train": rows})
    return {"source": folder, "dataset": "scans"}


def dicom_folder(folder: Path, n: int, _: Pictures) -> dict[str, Any]:
    table(folder / "labels.csv", [["file", "label"], *([f"{i}.dcm", ("a", "b")[i % 2]] for i in range(n))])
    for i in range(n):
        write_file(folder / "raw" / f"{i}.dcm", dicom_bytes(noise(i), PatientID=str(i)))
    return {"source": folder / "raw", "labels": folder / "labels.csv"}


def nifti_folder(folder: Path, n: int, _: Pictures) -> dict[str, Any]:
    table(folder / "labels.csv", [["file", "label"], *([f"{i}.nii", ("a", "b")[i % 2]] for i in range(n))])
    for i in range(n):
        voxels = np.random.default_rng(i).integers(0, 99, (256, 256, 32), dtype=np.int16).astype(np.float32)
        write_file(folder / "raw" / f"{i}.nii", nib.Nifti1Image(voxels, np.eye(4)).to_bytes())
    return {"source": folder / "raw", "labels": folder / "labels.csv"}


def m3d_cap_prepared(folder: Path, n: int, _: Pictures) -> dict[str, Any]:
    for i in range(n):
        m3d_cap.save(folder / "M3D_Cap_npy" / "ct_case" / f"{i:06d}", "Axial", i, f"Text {i}.")
    return {"source": folder}


def m3d_vqa_tables(folder: Path, n: int, _: Pictures) -> dict[str, Any]:
    """Three questions a volume, one after the other as in the published tables."""
    rows = []
    for i in range(n):
        m3d_cap.save(folder / "M3D_Cap_npy" / "ct_case" / f"{i:06d}", "Axial", i)
        image = f"M3D_Cap_npy/ct_case/{i:06d}/Axial.npy"
        rows += [m3d_vqa.row(image, 1, f"Which plane is {k}?", m3d_vqa.PLANES, "axial", "A") for k in range(3)]
    for part, part_rows in {"train": rows, "val": rows[:1], "test": rows[:1]}.items():
        m3d_vqa.table(folder / f"M3D_VQA_{part}.csv", part_rows)
    return {"source": folder}


def phantom(_folder: Path, n: int, _: Pictures) -> dict[str, Any]:
    return {"patients": n}


def m3d_seg_published(folder: Path, n: int, _: Pictures) -> dict[str, Any]:
    cases = [m3d_seg.save(folder / "0000" / str(i), [m3d_seg.LIVER], seed=i) for i in range(n)]
    m3d_seg.lists(folder, "0000", ["liver"], cases, [])
    return {"source": folder}


# name of the data set and its layout: (what writes it, whether its inputs are few and large)
SETS: dict[str, tuple[Callable[[Path, int, Pictures], dict[str, Any]], bool]] = {
    "vqa_rad/original": (vqa_rad_json, False),
    "vqa_rad/hub": (parquet, False),
    "path_vqa/original": (path_vqa_pickles, False),
    "path_vqa/hub": (parquet, False),
    "slake": (slake, False),
    "rsna": (rsna, False),
    "iu_xray/r2gen": (r2gen, False),
    "iu_xray/original": (openi, False),
    "peir_gross": (peir_gross, False),
    "isbi2015": (cephalograms, True),
    "m3d_seg": (m3d_seg_published, True),
    "pmc_oa": (pmc_oa, False),
    "chimed_vl": (chimed_vl, False),
    "jsonl": (jsonl, False),
    "medmnist": (medmnist_npz, False),
    "tfds": (tfds_records, False),
    "dicom_folder": (dicom_folder, False),
    "nifti_folder": (nifti_folder, True),
    "m3d_cap": (m3d_cap_prepared, True),
    "m3d_vqa": (m3d_vqa_tables, True),
    "phantom": (phantom, True),
}


def in_child(work: Callable[[], Any]) -> Any:
    """What `work` gives, done by a fork of this process."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.write(write, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as file:
        said = file.read()
    if os.waitpid(child, 0)[1]:
        raise SystemExit("failed")
    return json.loads(said)


def measured(name: str, n: int, root: Path) -> tuple[int, float]:
    """(records, MB that the peak adds to what the process starts with)."""
    folder = root / name.replace("/", "_") / str(n)
    options = in_child(lambda: _plain(SETS[name][0](folder / "raw", n, Pictures(root / "pictures"))))

    def work() -> tuple[int, float]:
        made = {key: Path(value) if key in _PATHS else value for key, value in options.items()}
        converter = importlib.import_module(f"data_pipelines.sources.{name.split('/')[0]}").converter(**made)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        manifest = prepare(converter, folder / "out")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        return sum(count for tasks in manifest["records"].values() for count in tasks.values()), peak / 1024

    return in_child(work)


_PATHS = ("source", "labels", "images", "cache")


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SETS))
    parser.add_argument("--inputs", type=int, default=100, help="of the smaller set; large ones a tenth")
    args = parser.parse_args()
    print("| data set | records | peak MB | records | peak MB | kB an input |\n|---|---|---|---|---|---|")
    for name in args.names or SETS:
        n = args.inputs // VOLUMES if SETS[name][1] else args.inputs
        with tempfile.TemporaryDirectory() as folder:
            (few, low), (many, high) = (measured(name, count, Path(folder)) for count in (n, 10 * n))
        growth = 1024 * (high - low) / (9 * n)
        print(f"| {name} | {few:,} | {low:.0f} | {many:,} | {high:.0f} | {growth:.1f} |", flush=True)


if __name__ == "__main__":
    main()
