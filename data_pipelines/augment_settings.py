"""The section data.augment of a training config, checked: what is drawn, how often, and how far it goes."""

import dataclasses
from typing import Any

from data_pipelines.corruptions import SEVERITIES, known_families
from data_pipelines.permits import KINDS

_SHARES = (*KINDS, "crop_least", "resize_least", "brightness", "contrast", "gamma", "noise", "hu_window")


class AugmentError(ValueError):
    """A setting that cannot be; the message names the field of the config."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The section data.augment of a training config. flip, crop, resize, intensity, corrupt: the share of the samples
    that are drawn for it. crop_least, resize_least: least part of each side that is seen, or that the image takes.
    brightness: most that is added (white is 1); contrast, gamma: most that the factor and the exponent's logarithm
    differ from 1 and 0; noise: largest standard deviation; hu_window: most of a window's width that is cut off at
    either end. families: of corruptions.py (none: all that the modality has); severities: 1 to 5."""

    flip: float = 0.0
    crop: float = 0.0
    crop_least: float = 0.7
    resize: float = 0.0
    resize_least: float = 0.7
    intensity: float = 0.0
    brightness: float = 0.1
    contrast: float = 0.15
    gamma: float = 0.15
    noise: float = 0.02
    hu_window: float = 0.1
    corrupt: float = 0.0
    families: tuple[str, ...] = ()
    severities: tuple[int, ...] = (1, 2, 3)

    def __post_init__(self) -> None:
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise AugmentError(f"data.augment.{name}: expected a number from 0 to 1, found {getattr(self, name)}")
        if not self.crop_least or not self.resize_least or self.hu_window >= 0.5:
            raise AugmentError("data.augment: expected crop_least and resize_least above 0, hu_window below 0.5")
        for family in self.families:
            if family not in known_families():
                known = ", ".join(sorted(known_families()))
                raise AugmentError(f"data.augment.families: expected some of {known}, found {family!r}")
        if not self.severities or not set(self.severities) <= set(SEVERITIES):
            raise AugmentError(f"data.augment.severities: expected some of 1 to 5, found {self.severities}")

    @classmethod
    def from_config(cls, augment: Any) -> "Settings | None":
        """The settings of a config's section, None where all its kinds are off."""
        settings = cls(
            flip=augment.flip,
            crop=augment.crop,
            crop_least=augment.crop_least,
            resize=augment.resize,
            resize_least=augment.resize_least,
            intensity=augment.intensity,
            brightness=augment.brightness,
            contrast=augment.contrast,
            gamma=augment.gamma,
            noise=augment.noise,
            hu_window=augment.hu_window,
            corrupt=augment.corrupt,
            families=tuple(augment.families),
            severities=tuple(augment.severities),
        )
        return settings if any(getattr(settings, kind) for kind in KINDS) else None
