"""Augmented training examples whose targets stay right: docs/augmentation.md. Off unless the config says how often.

| kind      | what                                                                                         |
| flip      | mirrored along x, y or both                                                                  |
| crop      | a part of the image that holds all of the target's boxes or points, as large as the whole    |
| resize    | the whole image smaller, black around it                                                     |
| intensity | brightness, contrast, gamma and noise; Hounsfield units: another window within the stored one |
| corrupt   | a family of corruptions.py                                                                   |

What is done to a sample is a function of (seed, epoch, its id): the same on any number of hosts and after any restart.
permits.py says what may be done to it. All its images and slices are changed alike. The size that the row plan counts
on stays: pixels fill the planned grid, and an answer whose coordinates moved is no longer than the one it replaces.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.augment_settings import Settings
from data_pipelines.corruptions import corrupt, covering, families
from data_pipelines.example import Example, Limits, Outline, Room, fill, outline, outline_as
from data_pipelines.geometry import Geometry
from data_pipelines.image import Processing
from data_pipelines.permits import has_coordinates, permits
from data_pipelines.prompts.answers import answer_text
from data_pipelines.record import Media, Record
from data_pipelines.seeded import generator
from data_pipelines.tokenizer import Tokenizer
from data_pipelines.tone import Tone, draw_tone, in_hounsfield
from umit_jax.targets import Frame, Target

DONE, NOT_DRAWN = "done", "not drawn"
FILLS, LONGER, NO_FAMILY = "target fills the image", "answer would be longer", "no family fits"
OUTCOMES: Mapping[str, tuple[str, ...]] = {  # what may come of a kind besides these two and permits.RULES
    "flip": (LONGER,),
    "crop": (FILLS, LONGER),
    "resize": (LONGER,),
    "intensity": (),
    "corrupt": (NO_FAMILY,),
}
_TRIES = 8  # geometries drawn until one's answer is no longer than planned
_FULL = 0.99  # of the image's side: a target that takes more leaves nothing to cut off
_MARGIN = 0.02  # of the image's side, kept around a point and a box


@dataclasses.dataclass(frozen=True)
class Augmenter:
    """Builds the training examples of a run."""

    settings: Settings
    tokenizer: Tokenizer
    processing: Processing
    limits: Limits
    seed: int

    def example(self, record: Record, epoch: int, room: Room | None = None) -> Example:
        """The sample as it is shown in this epoch; `augmented` of the example says what was done or why not. Raises
        ExampleError."""
        plan = outline(record, self.tokenizer, self.processing, self.limits)
        outcomes = self._drawn(record, epoch)
        record, plan, geometry = self._moved(record, plan, epoch, outcomes)
        change = self._pixels(record, epoch, outcomes, geometry)
        example = fill(record, plan, self.tokenizer, self.processing, change.show, room)
        return dataclasses.replace(example, augmented=outcomes)

    def _rng(self, record: Record, epoch: int, *names: str) -> np.random.Generator:
        """A generator for one purpose, so that one kind that is switched on changes nothing of another."""
        return generator(self.seed, "augment", record.id, str(epoch), *names)

    def _drawn(self, record: Record, epoch: int) -> dict[str, str]:
        """{kind: why it is not done, DONE where it is to be}, of the kinds that are on."""
        outcomes = {}
        for kind, refused in permits(record).items():
            share = getattr(self.settings, kind)
            if share > 0:
                drawn = self._rng(record, epoch, kind).random() < share
                outcomes[kind] = refused or (DONE if drawn else NOT_DRAWN)
        if outcomes.get("crop") == outcomes.get("resize") == DONE:  # one or the other
            outcomes["crop" if self._rng(record, epoch, "either").random() < 0.5 else "resize"] = NOT_DRAWN
        return outcomes

    def _moved(
        self, record: Record, plan: Outline, epoch: int, outcomes: dict[str, str]
    ) -> tuple[Record, Outline, Geometry]:
        """The record as it is seen, its outline and the geometry; notes what cannot be done."""
        if outcomes.get("crop") == DONE and max(_sides(record.target)) > _FULL:
            outcomes["crop"] = FILLS
        kinds = [kind for kind in ("flip", "crop", "resize") if outcomes.get(kind) == DONE]
        rng = self._rng(record, epoch, "geometry")
        for _ in range(_TRIES if kinds else 0):
            geometry = draw_geometry(rng, kinds, record.target, self.settings)
            seen = seen_through(record, geometry)
            if not has_coordinates(record):
                return seen, plan, geometry
            moved = outline_as(seen, plan.spans, self.tokenizer, self.processing)
            if moved.text_tokens <= plan.text_tokens:
                return seen, moved, geometry
        outcomes.update(dict.fromkeys(kinds, LONGER))
        return record, plan, Geometry()

    def _pixels(self, record: Record, epoch: int, outcomes: dict[str, str], geometry: Geometry) -> "_Change":
        tone = None
        if outcomes.get("intensity") == DONE:
            tone = draw_tone(self._rng(record, epoch, "tone"), self.settings)
        corruption = None
        if outcomes.get("corrupt") == DONE:
            rng = self._rng(record, epoch, "corruption")
            fitting = _families(record, self.settings.families)
            if fitting:
                severity = self.settings.severities[rng.integers(len(self.settings.severities))]
                corruption = fitting[rng.integers(len(fitting))], severity
            else:
                outcomes["corrupt"] = NO_FAMILY
        names = (record.id, str(epoch))
        return _Change(record.media, geometry, tone, corruption, self.seed, names)


@dataclasses.dataclass(frozen=True)
class _Change:
    """What is done to the pixels of a sample's media."""

    media: Sequence[Media]
    geometry: Geometry
    tone: Tone | None
    corruption: tuple[str, int] | None
    seed: int
    names: tuple[str, ...]

    def show(self, index: int, frames: Sequence[np.ndarray], size_wh: tuple[int, int]) -> np.ndarray:
        """A `Show` of image.py."""
        media = self.media[index]
        shown = np.stack([self.geometry.pixels(frame, size_wh) for frame in frames])
        rng = generator(self.seed, "pixels", *self.names, str(index))
        if self.tone is not None:
            shown = self.tone.apply(shown, in_hounsfield(media), rng)
        if self.corruption is not None:
            # From the same place for every media: a sample's images get the same blur and the same deposits.
            rng = generator(self.seed, "corruption", *self.names)
            shown = corrupt(shown, *self.corruption, rng, modality=media.modality)
        return shown


def seen_through(record: Record, geometry: Geometry) -> Record:
    """The record with its target, its answer and its spacing as they are seen."""
    target = geometry.target(record.target)
    turns = record.turns
    if has_coordinates(record):
        text = answer_text(target, task=record.task, language=record.language)
        turns = (*turns[:-1], dataclasses.replace(turns[-1], text=text))
    media = tuple(map(geometry.media, record.media))
    return dataclasses.replace(record, target=target, turns=turns, media=media)


def draw_geometry(rng: np.random.Generator, kinds: Sequence[str], target: Target, settings: Settings) -> Geometry:
    low, high, flips = (0.0, 0.0), (1.0, 1.0), (False, False)
    if "crop" in kinds:
        low, high = _crop(rng, target, settings.crop_least)
    if "resize" in kinds:
        extent = 1 / rng.uniform(settings.resize_least, 1)
        low = (rng.uniform(1 - extent, 0), rng.uniform(1 - extent, 0))  # anywhere in the frame
        high = (low[0] + extent, low[1] + extent)
    if "flip" in kinds:
        flips = ((True, False), (False, True), (True, True))[rng.integers(3)]
    return Geometry(low, high, flips)


def _crop(rng: np.random.Generator, target: Target, least: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Corners (x, y) of a part of at least `least` of each side, both sides cut alike, around all coordinates."""
    near, far = _extent(target)
    share = max(rng.uniform(least, 1), *_sides(target))
    x, y = (_between(rng, max(b - share, 0), min(a, 1 - share)) for a, b in zip(near, far, strict=True))
    return (x, y), (min(x + share, 1.0), min(y + share, 1.0))


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Where there is no choice, rounding may put high below low."""
    return rng.uniform(low, max(low, high))


def _sides(target: Target) -> list[float]:
    """Width and height of what a target needs, in fractions of the image's."""
    return [b - a for a, b in zip(*_extent(target), strict=True)]


def _extent(target: Target) -> tuple[list[float], list[float]]:
    """Corners (x, y) around all of a target's coordinates and a margin, in fractions of the image."""
    key = {"boxes": "box", "points": "point"}.get(target["kind"], "")
    items = target.get("items") or ()
    if not key or not items:
        return [0.5, 0.5], [0.5, 0.5]
    frame = Frame.from_json(target["frame"])
    corners = np.concatenate([np.reshape(item[key], (-1, frame.ndim)) for item in items])[:, :2]
    shares = corners / np.array(frame.size[:2])
    return (
        np.maximum(shares.min(axis=0) - _MARGIN, 0).tolist(),
        np.minimum(shares.max(axis=0) + _MARGIN, 1).tolist(),
    )


def _families(record: Record, wanted: Sequence[str]) -> list[str]:
    """Families that all of the record's media have; one that lays something over the image only where the whole image
    is classified, because what is asked for may lie below it."""
    if not record.media:
        return []
    common = [f for f in families(record.media[0].modality) if all(f in families(m.modality) for m in record.media)]
    hidden = frozenset() if record.task == "classification" else covering()
    return [f for f in common if f not in hidden and (not wanted or f in wanted)]
