"""`umit prepare medmnist`: the .npz files of MedMNIST v2, any of its eighteen sets and sizes -> classification.

| file                    | {flag}.npz (28 pixels), {flag}_64.npz, and for images {flag}_128.npz, {flag}_224.npz    |
| {train,val,test}_images | (n, h, w), (n, h, w, 3) or (n, d, h, w), uint8                                          |
| {train,val,test}_labels | (n, 1), or (n, 14) of 0 and 1 for chestmnist                                            |

Options are all labels of a set in the order of their numbers, from 0. A set whose labels do not exclude each other is
asked one label at a time, yes or no, which is how its benchmark scores it: a record per image and label.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data_pipelines.media.raster import encode_png
from data_pipelines.media.stack import show_stack
from data_pipelines.parts import Rejected
from data_pipelines.publish import Rules
from data_pipelines.record import SPLITS, Media, Record
from data_pipelines.sources import npz
from data_pipelines.sources.catalogue import catalogue
from data_pipelines.sources.fetch import cache_dir
from data_pipelines.sources.layout import LayoutError, one_of
from data_pipelines.sources.make import Maker
from data_pipelines.sources.source_files import find
from umit_jax.targets import options_target

NAME = "medmnist"
NAMES = {"train": "train", "validation": "val", "test": "test"}
TASK = "classification"
_NO_YES = ("no", "yes")
_FILE = re.compile(r"([a-z0-9]+?)(?:_(64|128|224))?\.npz")
_UNIT_BYTES, _UNIT_ROWS = 1 << 22, 256


@dataclasses.dataclass(frozen=True)
class Set:
    """One of the eighteen, see medmnist.yaml."""

    kind: str
    modality: str
    labels: tuple[str, ...]
    multi: bool = False
    solid: bool = False
    license: str = "CC-BY-4.0"


@functools.cache
def sets() -> dict[str, Set]:
    """Every set by flag, in the order of the paper."""
    table = yaml.safe_load(Path(__file__).with_name("medmnist.yaml").read_text(encoding="utf-8"))
    return {flag: Set(**row | {"labels": tuple(row["labels"])}) for flag, row in table.items()}


@dataclasses.dataclass(frozen=True)
class Unit:
    """Rows [start, stop) of one split of a file."""

    flag: str
    file: str
    changed_ns: int
    split: str
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class MedMnistConverter:
    """files: {flag: path below the source} of what is converted. cache: where compressed arrays are unpacked."""

    source: Path
    files: tuple[tuple[str, str], ...]
    seed: int
    cache: Path
    name: str = NAME
    near: bool = True

    @property
    def options(self) -> Mapping[str, Any]:
        return {"seed": self.seed, "files": [file for _, file in self.files]}

    @property
    def rules(self) -> Rules:
        expected: dict[str, int] = {f"{split}/{TASK}": 0 for split in SPLITS}
        for flag, _ in self.files:
            for key, count in catalogue()[NAME].subsets[flag].items():
                expected[key] += count
        return Rules(leaks="report", expected=expected)

    def units(self) -> list[Unit]:
        """Raises LayoutError and OSError."""
        units = []
        for flag, file in self.files:
            path = self.source / file
            for split in SPLITS:
                shape = _checked_shape(path, flag, split)
                rows = min(max(_UNIT_BYTES // int(np.prod(shape[1:])), 1), _UNIT_ROWS)
                changed = path.stat().st_mtime_ns
                ranges = ((start, min(start + rows, shape[0])) for start in range(0, shape[0], rows))
                units += [Unit(flag, file, changed, split, start, stop) for start, stop in ranges]
        return units

    def records(self, unit: Unit) -> Iterator[Record | Rejected]:
        path, chosen = self.source / unit.file, sets()[unit.flag]
        images = npz.rows(path, f"{NAMES[unit.split]}_images", self.cache).read(unit.start, unit.stop)
        labels = _labels(path, unit.split, unit.changed_ns)
        for row in range(unit.start, unit.stop):
            numbers = [int(n) for n in labels[row]]
            if any(not 0 <= n < (2 if chosen.multi else len(chosen.labels)) for n in numbers):
                yield Rejected(f"{self.name}/{_key(unit, row)}", "label out of range")
                continue
            media = _media(images[row - unit.start], chosen)
            if not chosen.multi:
                yield self._record(unit, row, media, chosen.labels, numbers[0])
                continue
            for label, number in zip(chosen.labels, numbers, strict=True):
                yield self._record(unit, row, media, _NO_YES, number, label)

    def _record(
        self, unit: Unit, row: int, media: Media, options: Sequence[str], index: int, about: str = ""
    ) -> Record:
        chosen = sets()[unit.flag]
        key = _key(unit, row) + (f"/{about}" if about else "")
        maker = Maker(self.name, chosen.license, self.source, self.seed)
        return maker.record(
            key,
            split=unit.split,
            patient=f"{unit.flag}/{unit.split}/{row}",
            task=TASK,
            language="en",
            topic=f"{unit.flag}/{about}" if about else unit.flag,
            media=(media,),
            question=maker.ask(key, TASK, chosen.kind, "en", about, options=options),
            target=options_target(options, index, 0),
            origin=f"{unit.file}, {unit.split} {row}",
        )


def converter(
    source: Path,
    *,
    subset: Sequence[str] = (),
    size: int | None = None,
    seed: int = 0,
    cache: Path | None = None,
) -> MedMnistConverter:
    """subset: flags of the sets wanted, by default all that are in `source`. size: pixels of a side; by default the
    only one there is of each. Raises LayoutError."""
    found: dict[str, dict[int, str]] = {}
    for path in find(source, "*.npz"):
        match = _FILE.fullmatch(path.name)
        if match and match[1] in sets():
            sizes, side = found.setdefault(match[1], {}), int(match[2] or 28)
            if side in sizes:
                raise LayoutError(f"{source}: {path.name} is there twice, the first as {sizes[side]}")
            sizes[side] = path.relative_to(source).as_posix()
    wanted = [one_of("subset", flag, list(catalogue()[NAME].subsets)) for flag in subset] or [
        flag for flag in sets() if flag in found
    ]
    if not wanted:
        raise LayoutError(f"{source}: no MedMNIST file ({', '.join(list(sets())[:3])}, ... .npz)")
    files = [(flag, _file(source, flag, found.get(flag, {}), size)) for flag in dict.fromkeys(wanted)]
    return MedMnistConverter(source, tuple(files), seed, cache or cache_dir())


def _file(source: Path, flag: str, sizes: Mapping[int, str], size: int | None) -> str:
    there = ", ".join(str(n) for n in sorted(sizes)) or "none"
    if size is None and len(sizes) == 1:
        return next(iter(sizes.values()))
    if size is None and sizes:
        raise LayoutError(f"--size: {source} has {flag} in several sizes: {there}")
    if size is None or size not in sizes:
        raise LayoutError(f"{source}: no file of {flag}{f' of size {size}' if size else ''}; sizes found: {there}")
    return sizes[size]


def _checked_shape(path: Path, flag: str, split: str) -> tuple[int, ...]:
    """Shape of a split's images, or LayoutError where images or labels are not as documented."""
    chosen = sets()[flag]
    shape, dtype = npz.shape_of(path, f"{NAMES[split]}_images")
    match = _FILE.fullmatch(path.name)
    side = int(match[2] or 28) if match else 28
    allowed = [(side,) * 3] if chosen.solid else [(side, side), (side, side, 3)]
    if tuple(shape[1:]) not in allowed or dtype != np.uint8:
        raise LayoutError(f"{path}: {split} images: expected uint8 of {allowed[0]}, found {dtype} of {shape[1:]}")
    columns = len(chosen.labels) if chosen.multi else 1
    found, kind = npz.shape_of(path, f"{NAMES[split]}_labels")
    if found != (shape[0], columns) or kind.kind not in "iu":
        raise LayoutError(
            f"{path}: {split} labels: expected integers of {(shape[0], columns)}, found {kind} of {found}"
        )
    return shape


@functools.lru_cache(maxsize=8)
def _labels(path: Path, split: str, changed_ns: int) -> np.ndarray:
    del changed_ns  # a changed file is read again
    return npz.read(path, f"{NAMES[split]}_labels")


def _key(unit: Unit, row: int) -> str:
    return f"{Path(unit.file).stem}/{unit.split}/{row}"


def _media(pixels: np.ndarray, chosen: Set) -> Media:
    if chosen.solid:
        return show_stack(pixels, chosen.modality, window="").media
    return Media((encode_png(pixels),), "image", chosen.modality, (pixels.shape[1], pixels.shape[0]))
