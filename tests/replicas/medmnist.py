"""Replica of MedMNIST: a few rows of a colour, a multi-label, an ordinal and a solid set; both kinds of .npz."""

from pathlib import Path
from typing import Any

import numpy as np

ROWS = {"train": 5, "val": 2, "test": 3}


def pixels(flag: str, split: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng([*flag.encode(), *split.encode()]).integers(0, 256, (ROWS[split], *shape), np.uint8)


def arrays(flag: str, shape: tuple[int, ...], labels: dict[str, Any]) -> dict[str, np.ndarray]:
    images = {f"{split}_images": pixels(flag, split, shape) for split in ROWS}
    return images | {f"{split}_labels": np.array(labels[split], np.uint8).reshape(ROWS[split], -1) for split in ROWS}


PATH = {"train": [0, 8, 3, 9, 1], "val": [2, 2], "test": [5, 6, 7]}  # 9 names no tissue
RETINA = {"train": [0, 1, 2, 3, 4], "val": [4, 0], "test": [2, 2, 1]}
ORGAN_3D = {"train": [0, 10, 1, 2, 3], "val": [4, 5], "test": [6, 7, 8]}
CHEST = {
    "train": [[0] * 14, [1] * 14, [1] + [0] * 13, [0] * 13 + [1], [0, 0, 2] + [0] * 11],  # a label of 2 means nothing
    "val": [[0] * 14] * 2,
    "test": [[0, 1] * 7] * 3,
}


def replica(root: Path) -> dict[str, Any]:
    source = root / "medmnist"
    source.mkdir(parents=True)
    np.savez_compressed(source / "pathmnist.npz", **arrays("pathmnist", (28, 28, 3), PATH))
    np.savez(source / "chestmnist.npz", **arrays("chestmnist", (28, 28), CHEST))
    np.savez(source / "retinamnist_64.npz", **arrays("retinamnist", (64, 64, 3), RETINA))
    np.savez_compressed(source / "organmnist3d_64.npz", **arrays("organmnist3d", (64, 64, 64), ORGAN_3D))
    np.savez(source / "mymnist.npz", anything=np.zeros(3))  # none of the eighteen
    (source / "pathmnist.npz.part").write_bytes(b"half a download")
    return {"source": source, "cache": root / "cache"}
