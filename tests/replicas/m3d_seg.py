"""Replica of M3D-Seg: two collections as published and in the older layout, or one as the authors prepare it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

SIZE = (20, 30, 40)  # x, y, z
FOREGROUND = ((2, 18), (5, 25), (4, 36))  # 16 x 20 x 32 voxels
LIVER, SPECK = ((4, 10), (7, 15), (8, 20)), ((5, 6), (6, 7), (9, 10))
NAMES = ["liver", "liver_tumor", "gallbladder"]


def image(seed: int = 0) -> np.ndarray:
    voxels = np.full((1, *SIZE), -1000.0, np.float32)
    spans = tuple(slice(a, b) for a, b in FOREGROUND)
    size = [b - a for a, b in FOREGROUND]
    voxels[0][spans] = np.linspace(-500, 500, size[2]) + seed  # a slope along z, as cheap to encode as a picture gets
    voxels[0][spans][::4] -= 99
    voxels[0][spans][:, 7:] += 300
    return voxels


def block(spans: Any) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    if spans:
        mask[tuple(slice(a, b) for a, b in spans)] = 1
    return mask


def save(folder: Path, masks: list[Any], *, seed: int = 0, older: str = "", shape: tuple[int, ...] = SIZE) -> list[str]:
    """Writes a case and returns its paths as the lists have them."""
    text = f"({len(masks)}, {shape[0]}, {shape[1]}, {shape[2]})"
    paths = [folder / "image.npy", folder / f"mask_{text}.npz"]
    if older:
        paths = [folder / "ct" / f"{older}.npy", folder / "gt" / f"{older}.{text}.npz"]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    np.save(paths[0], image(seed))
    sparse.save_npz(paths[1], sparse.csr_matrix(np.stack([block(m) for m in masks]).reshape(len(masks), -1)))
    return [path.as_posix() for path in paths]


def lists(source: Path, code: str, names: list[str], train: list[list[str]], test: list[list[str]]) -> None:
    def relative(pairs: list[list[str]]) -> list[dict[str, str]]:
        prefix = source.as_posix() + "/"
        return [{"image": a.removeprefix(prefix), "label": b.removeprefix(prefix)} for a, b in pairs]

    labels = {"0": "background", **{str(i + 1): name for i, name in enumerate(names)}}
    table = {"name": code, "modality": "CT", "labels": labels, "train": relative(train), "test": relative(test)}
    (source / code / f"{code}.json").write_text(json.dumps(table))


def original(root: Path) -> dict[str, Any]:
    source = root / "M3D_Seg"
    first = source / "0000"
    train = [save(first / "1", [LIVER, SPECK, None]), save(first / "2", [None, None, LIVER], seed=2)]
    other = save(first / "3", [LIVER, None, None], seed=3, shape=(20, 30, 41))
    gone = [(first / "4" / "image.npy").as_posix(), (first / "4" / "mask_(3, 20, 30, 40).npz").as_posix()]
    pickled = save(first / "5", [LIVER, None, None], seed=5)
    np.save(pickled[0], np.array([{"a": 1}]), allow_pickle=True)
    objects = save(first / "6", [LIVER, None, None], seed=6)
    np.savez(objects[1], data=np.array([None]), indices=[0], indptr=[0], shape=[3, 9], format=b"csr")
    unmasked = save(first / "7", [LIVER, None, None], seed=7)
    Path(unmasked[1]).unlink()
    blank = save(first / "8", [LIVER, None, None])
    np.save(blank[0], np.zeros((1, *SIZE), np.float32))
    broken = save(first / "9", [LIVER, None, None], seed=9)
    Path(broken[0]).write_bytes(Path(broken[0]).read_bytes()[:999])
    more = save(first / "10", [LIVER, None, None, LIVER], seed=10)
    bad = [other, gone, pickled, objects, unmasked, blank, broken, more]
    lists(source, "0000", NAMES, [*train, *bad], [save(first / "11", [LIVER, LIVER, LIVER], seed=11)])
    second = source / "0020"
    case = save(second, [LIVER, LIVER, LIVER], seed=20, older="case_00000")
    lists(source, "0020", ["lumbar spine L1", "lumbar spine L1", "sacrum"], [case], [])
    return {"source": source}


def prepared(root: Path) -> dict[str, Any]:
    source = root / "M3D_Seg_npy"
    folder = source / "0003" / "1"
    (folder / "masks").mkdir(parents=True)
    np.save(folder / "image.npy", np.random.default_rng(3).uniform(0, 1, (1, 32, 256, 256)).astype(np.float32))
    mask = np.zeros((1, 32, 256, 256), bool)
    mask[0, 3:9, 40:50, 100:200] = True
    np.save(folder / "masks" / "mask_0.npy", mask)
    np.save(folder / "masks" / "mask_2.npy", np.zeros((1, 1, 1, 1), bool))
    (source / "0003" / "2").mkdir()
    pair = "/elsewhere/data/M3D_Seg_npy/0003/1"
    train = [[f"{pair}/image.npy", f"{pair}/masks/mask_{i}.npy"] for i in (0, 2)]
    missing = [f"{pair[:-1]}2/image.npy", f"{pair[:-1]}2/masks/mask_0.npy"]
    lists(source, "0003", ["ignored"], train, [missing])
    (source / "dataset_info.json").write_text(json.dumps({"0003": ["kidney", "cyst", "tumor"]}))
    return {"source": source}
