"""Changes of intensity: brightness, contrast, gamma and noise; for Hounsfield units a window within the stored one.

A new window inside the stored one is what the file would have been shown with, no value invented. Brightness, contrast
and gamma have no such meaning and are for other images.
"""

import dataclasses

import numpy as np

from data_pipelines.augment_settings import Settings
from data_pipelines.media.volume import WINDOWS
from data_pipelines.record import Media


@dataclasses.dataclass(frozen=True)
class Tone:
    """One change of intensities. ends: of the new window, in shares of the stored one."""

    brightness: float
    contrast: float
    gamma: float
    noise: float
    ends: tuple[float, float]

    def apply(self, frames: np.ndarray, hounsfield: bool, rng: np.random.Generator) -> np.ndarray:
        """uint8 frames (t, h, w, 3) -> the same. What was black or white stays so in Hounsfield units: what lies
        outside of a window is not known."""
        values = np.arange(256) / 255
        if hounsfield:
            low, high = self.ends
            values = (values - low) / (high - low)
        else:
            values = (values**self.gamma - 0.5) * self.contrast + 0.5 + self.brightness
        table = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
        grey = bool((frames == frames[..., :1]).all())
        toned = table[frames[..., :1] if grey else frames]
        if self.noise > 0:
            toned = np.clip(toned + _noise(rng, toned.shape, 255 * self.noise), 0, 255).astype(np.uint8)
        return np.repeat(toned, 3, axis=-1) if grey else toned


def _noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Whole numbers, int16, nearly normal: the sum of four bytes, which costs a fraction of normal numbers."""
    count = int(np.prod(shape))
    sums = np.frombuffer(rng.bytes(4 * count), np.uint8).reshape(4, count).sum(axis=0, dtype=np.uint16)
    deviation = np.sqrt(4 * (256**2 - 1) / 12)
    table = np.rint((np.arange(4 * 255 + 1) - 510) * (sigma / deviation)).astype(np.int16)
    return table[sums].reshape(shape)


def draw_tone(rng: np.random.Generator, settings: Settings) -> Tone:
    s = settings
    return Tone(
        brightness=rng.uniform(-s.brightness, s.brightness),
        contrast=1 + rng.uniform(-s.contrast, s.contrast),
        gamma=float(np.exp(rng.uniform(-s.gamma, s.gamma))),
        noise=rng.uniform(0, s.noise),
        ends=(rng.uniform(0, s.hu_window), 1 - rng.uniform(0, s.hu_window)),
    )


def in_hounsfield(media: Media) -> bool:
    """Whether grey values are Hounsfield units in a known window."""
    return media.modality == "CT" and all(name in WINDOWS for name in media.window.split("+"))
