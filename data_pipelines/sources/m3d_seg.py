"""`umit prepare m3d_seg`: the 25 collections of M3D-Seg -> a box in 3D for each class of each volume.

| layout    | {code}/{code}.json lists {image, label}, of train and test                                            |
| original  | {case}/image.npy (1, x, y, z), {case}/mask_(C, X, Y, Z).npz: CSR of (C, X*Y*Z)                        |
| older     | ct/{case}.npy, gt/{case}.(C, X, Y, Z).npz                                                             |
| prepared  | image.npy (1, 32, 256, 256) from 0 to 1, label masks/mask_{i}.npy (1, 32, 256, 256): a pair a class   |

Classes are named by dataset_info.json where it is there ({code: [names]}), else by `labels` of {code}.json without the
background. Volumes are shown as docs/volumes.md says: foreground, 256 x 256 x 32, darkest to brightest; `window` says
that their values are Hounsfield units. A box is asked for by the name of its class, so a name that a list has twice
(the published one of the vertebrae) cannot be asked for.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data_pipelines.media import MediaError
from data_pipelines.media.array import read_array, read_csr
from data_pipelines.media.show import LARGEST
from data_pipelines.media.stack import Stack, show_stack
from data_pipelines.media.volume import MINMAX, box_of
from data_pipelines.parts import Rejected
from data_pipelines.publish import Rules
from data_pipelines.record import Record
from data_pipelines.sources.catalogue import catalogue
from data_pipelines.sources.layout import LayoutError, one_of, refuse_packed
from data_pipelines.sources.make import Maker
from data_pipelines.sources.source_files import folders, inside, load_json, patient_of
from umit_jax.targets import Frame, boxes_target

NAME = "m3d_seg"
_CODE = re.compile(r"\d{4}")
_SHAPE = re.compile(r"\(([\d, ]+)\)\.npz")
_PREPARED = re.compile(r"mask_(\d+)\.npy")


@dataclasses.dataclass(frozen=True)
class Unit:
    """One volume with its masks: an archive of all classes, or a file each. Paths are below the root. reason: why it
    is rejected, or ""."""

    code: str
    split: str
    image: str
    masks: tuple[str, ...]
    modality: str
    names: tuple[str, ...]
    reason: str = ""

    @property
    def key(self) -> str:
        return self.image.removesuffix("/image.npy").removesuffix(".npy")


@dataclasses.dataclass(frozen=True)
class M3dSegConverter:
    """root: the folder of the collections, `source` or one in it."""

    source: Path
    root: Path
    codes: tuple[str, ...]
    whole: bool
    window: str
    seed: int
    name: str = NAME
    near: bool = True

    @property
    def options(self) -> Mapping[str, Any]:
        return {"codes": self.codes, "window": self.window, "seed": self.seed}

    @property
    def rules(self) -> Rules:
        return Rules(leaks="report", expected=catalogue()[NAME].records if self.whole else {})

    def units(self) -> list[Unit]:
        """Raises LayoutError and OSError."""
        patient_of(self.source, "")  # the key is there before the workers are
        listed = self.root / "dataset_info.json"
        info = load_json(listed) if listed.is_file() else {}
        if not isinstance(info, dict) or not all(isinstance(names, list) for names in info.values()):
            raise LayoutError(f"{listed}: expected a list of class names for each collection")
        return [unit for code in self.codes for unit in self._of(code, info.get(code))]

    def _of(self, code: str, named: Sequence[str] | None) -> Iterator[Unit]:
        file = self.root / code / f"{code}.json"
        try:
            lists = load_json(file)
            modality = "CT" if "CT" in str(lists.get("modality", "")).upper() else "OT"
            labels = sorted((int(number), str(name)) for number, name in lists["labels"].items() if int(number) > 0)
            names = tuple(str(n).replace("_", " ").strip() for n in (named or [name for _, name in labels]))
            seen: set[str] = set()
            for split in ("train", "test"):
                listed: dict[str, dict[str, None]] = {}
                for pair in lists[split]:
                    listed.setdefault(_below(code, pair["image"]), {})[_below(code, pair["label"])] = None
                for image, masks in listed.items():
                    reason = "volume is in the training list too" if image in seen else ""
                    yield Unit(code, split, image, tuple(masks), modality, names, reason)
                seen.update(listed)
        except FileNotFoundError:
            raise LayoutError(f"{file}: not there") from None
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, LayoutError):
                raise
            raise LayoutError(f"{file}: expected labels, train and test of {{image, label}}, misses {error}") from None

    def records(self, unit: Unit) -> Iterator[Record | Rejected]:
        try:
            if unit.reason:
                raise MediaError(unit.reason)
            voxels_ZYX, prepared = _voxels(inside(self.root, unit.image))
            stack = show_stack(voxels_ZYX, unit.modality, window=self.window, size_xyz=LARGEST, foreground=not prepared)
            masks = _masks(self.root, unit, stack, voxels_ZYX.shape)
            for number, box in masks:
                yield self._record(unit, stack, number, box)
        except MediaError as error:
            yield Rejected(f"{NAME}/{unit.key}", error.reason)

    def _record(self, unit: Unit, stack: Stack, number: int, box: list[float] | str) -> Record | Rejected:
        key = f"{unit.key}/{number}"
        if isinstance(box, str):
            return Rejected(f"{NAME}/{key}", box)
        if number >= len(unit.names) or not unit.names[number]:
            return Rejected(f"{NAME}/{key}", "class without a name")
        name = unit.names[number]
        if unit.names.count(name) > 1:
            return Rejected(f"{NAME}/{key}", "two classes of one name")
        maker = Maker(NAME, catalogue()[NAME].license, self.source, self.seed)
        return maker.record(
            key,
            split=unit.split,
            patient=unit.key,
            task="detection",
            language="en",
            topic=f"box3d/{name}",
            media=(stack.media,),
            question=maker.ask(key, "detection", "box3d", "en", name, size=stack.media.size),
            target=boxes_target(Frame("voxel", tuple(float(n) for n in stack.media.size)), [(name, box)]),
            origin=f"{unit.key}, class {number}",
        )


def converter(source: Path, *, subset: Sequence[str] = (), window: str = MINMAX, seed: int = 0) -> M3dSegConverter:
    """subset: codes ("0000" to "0024") of the collections wanted, by default all there are. Raises LayoutError."""
    roots = {folder: found for folder in folders(source) if (found := _codes(folder))}
    for folder in roots or folders(source):
        for code in subset or [f"{number:04d}" for number in range(25)]:
            refuse_packed(folder / code)
    if not roots:
        raise LayoutError(f"{source}: no collection (a folder 0000 to 0024), here or one folder deeper")
    root, found = next(iter(roots.items()))
    if root != source and len(roots) > 1:
        raise LayoutError(f"{source}: collections in several folders: {', '.join(path.name for path in roots)}")
    codes = tuple(one_of("subset", code, found) for code in dict.fromkeys(subset)) or tuple(found)
    return M3dSegConverter(source, root, codes, not subset, window, seed)


def _codes(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and _CODE.fullmatch(path.name))


def _below(code: str, name: str) -> str:
    """A path of the lists as one below the root: whatever stands before the collection's code is not ours."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if code in parts:
        parts = parts[len(parts) - 1 - parts[::-1].index(code) :]
        return "/".join(parts)
    return "/".join((code, *parts))


def _voxels(path: Path) -> tuple[np.ndarray, bool]:
    """(voxels (z, y, x), whether they are prepared) of an image (1, x, y, z), or prepared (1, z, y, x)."""
    image = read_array(path)
    if image.ndim != 4 or image.shape[0] != 1:
        raise MediaError("image is not (1, x, y, z)")
    prepared = image.shape[1:] == LARGEST[::-1]
    return np.asarray(image[0] if prepared else image[0].transpose(2, 1, 0)), prepared


def _masks(root: Path, unit: Unit, stack: Stack, shape_ZYX: tuple[int, ...]) -> Iterator[tuple[int, list[float] | str]]:
    """(number of a class, its box in the volume as shown, or why there is none)."""
    for name in unit.masks:
        prepared = _PREPARED.fullmatch(PurePosixPath(name).name)
        try:
            path = inside(root, name)
        except MediaError:
            raise MediaError("mask file is missing") from None
        if prepared:
            mask = read_array(path)
            same = mask.ndim == 4 and mask.shape[1:] == shape_ZYX
            if not same and mask.any():
                raise MediaError("mask of another shape than the image")
            yield int(prepared[1]), (box_of(mask[0]) if same else None) or "class is empty in this volume"
            continue
        stated = _SHAPE.search(name)
        shape = tuple(int(n) for n in stated[1].split(",")) if stated else ()
        if len(shape) != 4 or shape[:0:-1] != shape_ZYX:
            raise MediaError("mask of another shape than the image")
        rows = read_csr(path)
        if len(rows.columns) != shape[0]:
            raise MediaError("mask of another number of classes than its name says")
        for number, columns in enumerate(rows.columns):
            if not len(columns):
                yield number, "class is empty in this volume"
                continue
            mask_ZYX = rows.dense(number, shape[1:]).transpose(2, 1, 0)
            yield number, stack.box(mask_ZYX) or "nothing of the class is left at the size shown"
