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
        table = np.clip(values, 0, 1) * 255
        grey = bool((frames == frames[..., :1]).all())
        toned = table.astype(np.float32)[frames[..., :1] if grey else frames]
        toned += np.float32(255 * self.noise) * rng.standard_normal(toned.shape, np.float32)
        out = np.clip(np.rint(toned), 0, 255).astype(np.uint8)
        return np.repeat(out, 3, axis=-1) if grey else out


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
