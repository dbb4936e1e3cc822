"""`umit prepare isbi2015`: the cephalograms of the ISBI 2015 challenge -> 19 landmark questions an image.

| file                                            | content                                                         |
| RawImage/{TrainingData,Test1Data,Test2Data}/N.bmp | 1935 x 2400 pixels of 0.1 mm                                  |
| AnnotationsByMD/{400_junior,400_senior}/N.txt   | 19 lines `x,y`, then classes of the bite, which are not read    |

The challenge's own parts stay apart: training -> train, test 1 -> validation, test 2 -> test. Truth is the mean of both
annotators, or either. Images are resized to 600 x 800, the frame that answers speak; the numbers are in isbi2015.yaml.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data_pipelines.inputs import note
from data_pipelines.media import MediaError
from data_pipelines.media.raster import encode_png, read_image, resize
from data_pipelines.parts import Rejected
from data_pipelines.prompts import term
from data_pipelines.publish import Rules
from data_pipelines.record import Media, Record
from data_pipelines.sources.layout import LayoutError, one_of, refuse_packed
from data_pipelines.sources.make import Maker
from umit_jax.targets import Frame, TargetError, convert, points_target

ANNOTATORS = ("mean", "senior", "junior")
LICENSE = "research only (ISBI 2015 challenge)"


@functools.cache
def facts() -> dict[str, Any]:
    """isbi2015.yaml."""
    return yaml.safe_load(Path(__file__).with_name("isbi2015.yaml").read_text(encoding="utf-8"))


@dataclasses.dataclass(frozen=True)
class Unit:
    """One image. file: its name."""

    split: str
    number: str
    file: str


@dataclasses.dataclass(frozen=True)
class Isbi2015Converter:
    """source: the folder that holds RawImage and AnnotationsByMD."""

    source: Path
    annotator: str
    seed: int
    name: str = "isbi2015"
    near: bool = True

    @property
    def options(self) -> Mapping[str, Any]:
        return {"annotator": self.annotator, "seed": self.seed}

    @property
    def rules(self) -> Rules:
        each = len(facts()["landmarks"])
        return Rules(leaks="report", expected={f"{s}/landmark": n * each for s, n in facts()["counts"].items()})

    def units(self) -> list[Unit]:
        """Raises LayoutError and OSError."""
        refuse_packed(self.source / "AnnotationsByMD")
        units = []
        for split, folder in facts()["splits"].items():
            there = self.source / "RawImage" / folder
            refuse_packed(there)
            names = sorted(path.name for path in there.iterdir()) if there.is_dir() else []
            images = [name for name in names if name.lower().endswith(".bmp")]
            if not images:
                raise LayoutError(f"{self.source}: expected RawImage/{folder}/*.bmp, found none")
            units += [Unit(split, Path(name).stem, name) for name in images]
        return units

    def _annotations(self, number: str) -> dict[str, Path]:
        folders = facts()["annotators"]
        names = folders if self.annotator == "mean" else {self.annotator: folders[self.annotator]}
        return {name: self.source / "AnnotationsByMD" / folder / f"{number}.txt" for name, folder in names.items()}

    def records(self, unit: Unit) -> Iterator[Record | Rejected]:
        id = f"{self.name}/{unit.number}"
        try:
            media = _shown(self.source / "RawImage" / facts()["splits"][unit.split] / unit.file)
            points = np.mean([read_points(path) for path in self._annotations(unit.number).values()], axis=0)
        except MediaError as error:
            yield Rejected(id, error.reason)
            return
        width, height = facts()["size"]
        raw = Frame("raw", (width, height), tuple(facts()["mm_per_pixel"]))
        for landmark, point in zip(facts()["landmarks"], points.tolist(), strict=True):
            try:
                yield self._record(unit, landmark, point, raw, media)
            except TargetError:
                yield Rejected(f"{id}/{landmark}", "landmark outside the image")

    def _record(self, unit: Unit, landmark: str, point: list[float], raw: Frame, media: Media) -> Record:
        frame = raw.rescaled("resized", facts()["shown"])
        maker = Maker(self.name, LICENSE, self.source, self.seed)
        key = f"{unit.number}/{landmark}"
        return maker.record(
            key,
            split=unit.split,
            patient=unit.number,
            task="landmark",
            language="en",
            topic=f"landmark/{landmark}",
            media=(media,),
            question=maker.ask(key, "landmark", "point", "en", target=landmark, size=facts()["shown"]),
            target=points_target(frame, [(term(landmark, "en"), convert(point, raw, frame))]),
            origin=f"{facts()['splits'][unit.split]}/{unit.file}, annotator {self.annotator}",
        )


def converter(source: Path, *, annotator: str = "mean", seed: int = 0) -> Isbi2015Converter:
    """annotator: whose points are the truth, one of ANNOTATORS. Raises LayoutError."""
    one_of("annotator", annotator, ANNOTATORS)
    roots = [folder for folder in (source, *sorted(source.iterdir())) if (folder / "RawImage").is_dir()]
    if not roots:
        for folder in (source, *source.glob("*/")):
            refuse_packed(folder / "RawImage")
        raise LayoutError(f"{source}: no folder RawImage, here or one folder deeper")
    return Isbi2015Converter(roots[0], annotator, seed)


def read_points(path: Path) -> np.ndarray:
    """(19, 2) pixels of the image as stored. Raises MediaError."""
    count = len(facts()["landmarks"])
    note(path)
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")[:count]
    except OSError:
        raise MediaError("annotation file is missing") from None
    try:
        points = np.array([[float(number) for number in line.split(",")] for line in lines if line.strip()])
    except ValueError:
        raise MediaError("annotation line is not x,y") from None
    if points.shape != (count, 2) or not np.isfinite(points).all():
        raise MediaError("not 19 landmarks of two numbers")
    return points


def _shown(path: Path) -> Media:
    note(path)
    pixels = read_image(path)
    if (pixels.shape[1], pixels.shape[0]) != tuple(facts()["size"]):
        raise MediaError("image is not 1935 x 2400")
    if (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    frame = Frame("raw", tuple(facts()["size"]), tuple(facts()["mm_per_pixel"])).rescaled("resized", facts()["shown"])
    width, height = facts()["shown"]
    spacing = tuple(round(mm, 6) for mm in frame.mm_per_unit or ())
    return Media((encode_png(resize(pixels, (width, height))),), "image", "DX", (width, height), spacing)
