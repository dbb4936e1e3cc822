"""`umit prepare tfds:NAME`: an image set of TensorFlow Datasets that is on disk already -> Records, without TensorFlow.

| feature                                   | becomes                                                             |
| Image                                     | the image, in its own bytes; the set must have one                  |
| ClassLabel                                | a classification; a number below 0 is no label                      |
| Text or a sequence of it, where its name  | a caption each                                                      |
| says caption, text, description or report |                                                                     |
| sequence of BBoxFeature, and ClassLabel   | a detection for each class in the image, answered with all its boxes |

`subset` names the features that are asked about, by default all of these. Splits are the set's own, by how their names
start; a set with one only is divided by a hash and the seed. Nothing is known of patients: each image is one.
"""

import dataclasses
import functools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.media import MediaError
from data_pipelines.media.picture import picture
from data_pipelines.parts import Rejected
from data_pipelines.publish import Rules
from data_pipelines.record import Media, Record
from data_pipelines.shard_format import load_tfds
from data_pipelines.sources.folder import split_of
from data_pipelines.sources.layout import LayoutError, one_of
from data_pipelines.sources.make import Maker, RowError, boxes, plain
from data_pipelines.sources.source_files import patient_of
from data_pipelines.sources.tfds_files import Span, find_version, open_builder, read_span, spans
from umit_jax.targets import Target, TargetError, options_target, text_target

MOST_CLASSES = 100  # a question lists them all
_STARTS = {"train": "train", "val": "validation", "test": "test"}
_CAPTION = re.compile("caption|text|description|report")

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which features, by path in a record, are what. labels: {path: names}; boxes: {path: (path of the classes, their
    names)}."""

    image: str
    labels: Mapping[str, tuple[str, ...]]
    texts: tuple[str, ...]
    boxes: Mapping[str, tuple[str, tuple[str, ...]]]


@dataclasses.dataclass(frozen=True)
class Unit:
    """split: the set's own, or ours where `reason` is empty."""

    own: str
    split: str
    span: Span | None
    changed_ns: int = 0
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class TfdsConverter:
    """folder: the version's, with features.json."""

    source: Path
    folder: Path
    name: str
    subset: tuple[str, ...]
    modality: str
    license: str
    seed: int
    near: bool = True

    @property
    def rules(self) -> Rules:
        return Rules(leaks="report")

    @property
    def options(self) -> Mapping[str, Any]:
        shown = {"subset": self.subset, "modality": self.modality, "license": self.license, "seed": self.seed}
        return {**shown, "version": self.folder.name}

    def units(self) -> list[Unit]:
        """Raises LayoutError and OSError."""
        patient_of(self.source, "")  # the key is there before the workers are
        plan_of(self.folder, self.subset)
        builder = open_builder(self.folder)
        ours = {own: next((ours for start, ours in _STARTS.items() if own.startswith(start)), "")
                for own in builder.info.splits}  # fmt: skip
        alone = sum(bool(split) for split in ours.values()) == 1
        units = []
        for own, split in ours.items():
            if not split:
                units.append(Unit(own, "", None, reason="split is none of train, validation and test"))
                continue
            for span in spans(self.folder, builder, own):
                changed = (self.folder / span.file).stat().st_mtime_ns
                units.append(Unit(own, "" if alone else split, span, changed))
        return units

    def records(self, unit: Unit) -> Iterator[Record | Rejected]:
        if unit.span is None:
            yield Rejected(f"{self.name}/{unit.own}", unit.reason)
            return
        plan = plan_of(self.folder, self.subset)
        for i, values in enumerate(read_span(self.folder, unit.span)):
            row = f"{unit.own}/{unit.span.row + i}"
            try:
                media = picture(b"".join(values[plan.image][:1]), self.modality)
            except (MediaError, KeyError) as error:
                reason = error.reason if isinstance(error, MediaError) else "no image"
                yield Rejected(f"{self.name}/{row}", reason)
                continue
            found = list(self._asked(row, unit.split or split_of(row, self.seed), values, plan, media))
            yield from found or [Rejected(f"{self.name}/{row}", "nothing to ask about")]

    def _asked(
        self, row: str, split: str, values: Mapping[str, Any], plan: Plan, media: Media
    ) -> Iterator[Record | Rejected]:
        for path, names in plan.labels.items():
            number = next(iter(values.get(path, [])), -1)
            if 0 <= number < len(names):
                try:
                    target = options_target(names, int(number), 0)
                except TargetError:
                    yield Rejected(f"{self.name}/{row}/{path}", "class names that repeat")
                    continue
                yield self._record(row, split, path, "classification", "label", media, target, {"options": names})
            else:
                yield Rejected(f"{self.name}/{row}/{path}", "no label" if number < 0 else "label out of range")
        for path in plan.texts:
            for i, data in enumerate(values.get(path, [])):
                if text := plain(data.decode("utf-8", "replace")):
                    key = f"{path}/{i}" if i else path
                    yield self._record(row, split, key, "caption", "caption", media, text_target(text))
        for path, (classes, names) in plan.boxes.items():
            try:
                yield from self._boxes(row, split, path, values, classes, names, media)
            except RowError as error:
                yield Rejected(f"{self.name}/{row}/{path}", str(error))

    def _boxes(
        self,
        row: str,
        split: str,
        path: str,
        values: Mapping[str, Any],
        classes: str,
        names: Sequence[str],
        media: Media,
    ) -> Iterator[Record | Rejected]:
        width, height = media.size
        corners = np.asarray(values.get(path, []), float).reshape(-1, 4) * (height, width, height, width)
        numbers = [int(n) for n in values.get(classes, [])] if classes else [0] * len(corners)
        if len(numbers) != len(corners) or any(not 0 <= n < len(names) for n in numbers):
            raise RowError("label out of range")
        for number in sorted(set(numbers)):
            items = [(names[number], (x1, y1, x2, y2)) for (y1, x1, y2, x2), n in zip(corners, numbers, strict=True)
                     if n == number]  # fmt: skip
            key = f"{path}/{number}"
            try:
                target = boxes(media, items)
            except RowError as error:
                yield Rejected(f"{self.name}/{row}/{key}", str(error))
                continue
            yield self._record(row, split, key, "detection", "box2d", media, target, {"name": names[number]})

    def _record(
        self, row: str, split: str, key: str, task: str, kind: str, media: Media, target: Target, slots: Any = None
    ) -> Record:
        maker = Maker(self.name, self.license, self.source, self.seed)
        return maker.record(
            f"{row}/{key}",
            split=split,
            patient=row,
            task=task,
            language="en",
            topic=f"box/{slots['name']}" if task == "detection" else key,
            media=(media,),
            question=maker.ask(f"{row}/{key}", task, kind, "en", **(slots or {})),
            target=target,
            origin=f"{self.folder.name}, {row}",
        )


def converter(
    source: Path,
    *,
    dataset: str = "",
    subset: Sequence[str] = (),
    modality: str = "OT",
    license: str = "",
    seed: int = 0,
    **options: Any,
) -> TfdsConverter:
    """source: TensorFlow Datasets' folder of data, or one version's. dataset: NAME or NAME/CONFIG. license: by default
    what the set states. Raises LayoutError."""
    if options:
        raise LayoutError(f"--{next(iter(options))}: has no meaning here")
    folder = find_version(source, dataset)
    info = open_builder(folder).info
    name = "tfds_" + re.sub("[^a-z0-9]+", "_", info.full_name.rsplit("/", 1)[0].lower()).strip("_")
    stated = license or str(info.redistribution_info.license or "").strip() or "unspecified"
    return TfdsConverter(source, folder, name, tuple(subset), modality, stated, seed)


@functools.lru_cache(maxsize=8)
def plan_of(folder: Path, subset: tuple[str, ...]) -> Plan:
    """Raises LayoutError where there is not one image of 8 bits, or nothing to ask about."""
    f = load_tfds().features
    flat = dict(_flat(open_builder(folder).info.features, ""))
    images = [path for path, feature in flat.items() if isinstance(feature, f.Image) and "/" not in path]
    if len(images) != 1 or np.dtype(flat[images[0]].np_dtype) != np.uint8:
        raise LayoutError(
            f"{folder}: expected one image of 8 bits among its features, found {', '.join(images) or 'none'}"
        )
    names = {p: tuple(map(str, x.names)) for p, x in flat.items() if isinstance(x, f.ClassLabel)}
    found = {path: path for path, x in flat.items() if isinstance(x, f.BBoxFeature)}
    classes = {path: next((p for p in names if p.rpartition("/")[0] == path.rpartition("/")[0] != ""), "")
               for path in found}  # fmt: skip
    texts = [p for p, x in flat.items() if isinstance(x, f.Text) and _CAPTION.search(p)]
    labels = {path: n for path, n in names.items() if path not in classes.values() and len(n) > 1}
    every = [*labels, *texts, *found]
    wanted = [one_of("subset", path, every) for path in subset] or every
    if not wanted:
        raise LayoutError(f"{folder}: no class, caption or box among its features: {', '.join(flat)}")
    for path in wanted:
        if len(labels.get(path, ())) > MOST_CLASSES:
            raise LayoutError(f"{folder}: {path}: {len(labels[path])} classes, more than {MOST_CLASSES} in a question")
    return Plan(
        image=images[0],
        labels={path: n for path, n in labels.items() if path in wanted},
        texts=tuple(path for path in texts if path in wanted),
        boxes={p: (classes[p], names.get(classes[p], ("object",))) for p in found if p in wanted},
    )


def _flat(features: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """(path in a record, feature) of what is not a mapping or a sequence itself."""
    f = load_tfds().features
    if isinstance(features, f.Sequence):
        yield from _flat(features.feature, prefix)
    elif isinstance(features, f.FeaturesDict):
        for name, feature in features.items():
            yield from _flat(feature, f"{prefix}/{name}" if prefix else name)
    else:
        yield prefix, features
