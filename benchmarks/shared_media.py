"""What storing an image or volume once saves where a data set asks many questions about one.

Small sets in raw layouts, with as many questions an image as the published ones have, are prepared; the bytes of their
shards are compared with those that the same records would take with their own frames each. Then records are read in
random order: those that hold their frames, and those whose frames an earlier record holds.

    python benchmarks/shared_media.py
    python benchmarks/shared_media.py memory     peak memory of preparing these sets, and ten times as many images
"""

import csv
import json
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from data_pipelines.preparation import prepare
from data_pipelines.shards import RecordSource, open_shards
from data_pipelines.sources import isbi2015, m3d_vqa, medmnist, slake

IMAGES = {"chestmnist": 300, "isbi2015": 8, "m3d_vqa": 12, "slake": 40}


def smooth(rng: np.random.Generator, *size: int) -> np.ndarray:
    """uint8 (h, w) with shapes and noise, as a radiograph."""
    low = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
    pixels = np.asarray(low.resize(size, Image.Resampling.BICUBIC), np.int16)
    return np.clip(pixels + rng.integers(-3, 4, pixels.shape), 0, 255).astype(np.uint8)


def chestmnist(folder: Path, side: int) -> Any:
    """Fourteen labels, each asked about."""
    rng, arrays = np.random.default_rng(0), {}
    for split, count in (("train", IMAGES["chestmnist"]), ("val", 1), ("test", 1)):
        arrays[f"{split}_images"] = np.stack([smooth(rng, side, side) for _ in range(count)])
        arrays[f"{split}_labels"] = rng.integers(0, 2, (count, 14))
    np.savez(folder / ("chestmnist.npz" if side == 28 else f"chestmnist_{side}.npz"), **arrays)
    return medmnist.converter(folder, cache=folder / "cache")


def cephalograms(folder: Path) -> Any:
    """Nineteen landmarks."""
    rng = np.random.default_rng(0)
    for part in ("RawImage/TrainingData", "AnnotationsByMD/400_junior", "AnnotationsByMD/400_senior"):
        (folder / part).mkdir(parents=True)
    for number in range(1, IMAGES["isbi2015"] + 1):
        Image.fromarray(smooth(rng, 1935, 2400)).save(folder / f"RawImage/TrainingData/{number:03d}.bmp")
        for who in ("junior", "senior"):
            lines = "".join(f"{x},{y}\n" for x, y in rng.integers(0, 1900, (19, 2)))
            (folder / f"AnnotationsByMD/400_{who}/{number:03d}.txt").write_text(lines)
    return isbi2015.converter(folder)


def volumes(folder: Path) -> Any:
    """509,755 questions about 96,170 volumes: five and a third of them each."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(IMAGES["m3d_vqa"]):
        name = f"M3D_Cap_npy/ct_case/{number:06d}/Axial.npy"
        (folder / name).parent.mkdir(parents=True)
        voxels = np.stack([smooth(rng, 256, 256) for _ in range(32)]).astype(np.float32) / 255
        np.save(folder / name, voxels[None])
        for kind in range(1, 6 + (number % 3 == 0)):
            choices = ["axial", "coronal", "sagittal", "oblique"]
            rows.append([name, "", min(kind, 5), f"Question {kind} of {number}?", *choices, "axial", "A"])
    header = "Image Path,Text,Question Type,Question,Choice A,Choice B,Choice C,Choice D,Answer,Answer Choice"
    with (folder / "M3D_VQA_train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return m3d_vqa.converter(folder)


def bilingual(folder: Path) -> Any:
    """14,028 questions about 642 images: twenty-two each."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(IMAGES["slake"]):
        place = folder / "imgs" / f"xmlab{number}"
        place.mkdir(parents=True)
        Image.fromarray(smooth(rng, 512, 512)).save(place / "source.jpg", quality=90)
        for i in range(22):
            row = {"img_name": f"xmlab{number}/source.jpg", "q_lang": "en", "modality": "MRI", "content_type": "Organ"}
            rows.append({**row, "qid": len(rows), "question": f"Which organ is number {i}?", "answer": "Liver"})
    for name, part in (("train", rows), ("validate", []), ("test", [])):
        (folder / f"{name}.json").write_text(json.dumps(part))
    return slake.converter(folder, subset=["en"])


SETS: dict[str, Callable[[Path], Any]] = {
    "chestmnist, 28 pixels": lambda folder: chestmnist(folder, 28),
    "chestmnist, 224 pixels": lambda folder: chestmnist(folder, 224),
    "isbi2015": cephalograms,
    "m3d_vqa": volumes,
    "slake": bilingual,
}


def reading(source: RecordSource) -> str:
    """Milliseconds a record, of those that hold their frames and of the others."""
    seen: set[bytes] = set()
    groups: list[list[int]] = [[], []]
    for i in range(len(source)):
        frame = source[i].media[0].frames[0]
        groups[frame in seen].append(i)
        seen.add(frame)
    said = []
    for group in groups:
        order = np.random.default_rng(0).permutation(group)[:300].tolist()
        start = time.process_time()
        for i in order:
            source[i]
        said.append(1000 * (time.process_time() - start) / len(order))
    return f"reading {said[0]:.2f} ms a record that holds its frames, {said[1]:.2f} ms one that does not"


def peak_mb(name: str, times: int) -> tuple[int, float]:
    """(records, peak memory) of preparing a set of so many times the images, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = [
            subprocess.run(
                [sys.executable, __file__, "--part", part, name, folder, str(times)], capture_output=True, check=True
            ).stdout.split()
            for part in ("write", "prepare")
        ]
        return int(done[1][-2]), float(done[1][-1])


def part_of(part: str, name: str, folder: Path, times: int) -> None:
    """One part of peak_mb: the set is written by another process than the one that is measured."""
    for key in IMAGES:
        IMAGES[key] *= times
    raw = folder / "raw"
    if part == "write":
        raw.mkdir()
        (folder / "converter").write_bytes(pickle.dumps(SETS[name](raw)))
        return
    manifest = prepare(pickle.loads((folder / "converter").read_bytes()), folder / "out")
    records = sum(sum(tasks.values()) for tasks in manifest["records"].values())
    print(records, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def memory() -> None:
    for name in SETS:
        (few, low), (many, high) = peak_mb(name, 1), peak_mb(name, 10)
        print(f"{name}: {few} records {low:.0f} MB, {many} records {high:.0f} MB", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["--part"]:
        return part_of(sys.argv[2], sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]))
    return memory() if sys.argv[1:] == ["memory"] else sizes()


def sizes() -> None:
    for name, write in SETS.items():
        with tempfile.TemporaryDirectory() as folder:
            raw, out = Path(folder) / "raw", Path(folder) / "out"
            raw.mkdir()
            manifest = prepare(write(raw), out)
            stored = sum(shard["bytes"] for shard in manifest["shards"])
            source, alone, images = open_shards(out, "train"), stored, set()
            for split in manifest["records"]:
                for record in open_shards(out, split):
                    frames = record.media[0].frames
                    alone += sum(map(len, frames)) if frames in images else 0
                    images.add(frames)
            each = sum(sum(tasks.values()) for tasks in manifest["records"].values()) / len(images)
            print(
                f"{name}: {each:.1f} questions an image; {stored / 1e6:.1f} MB, with frames each {alone / 1e6:.1f} MB: "
                f"{alone / stored:.1f} times; {reading(source)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
