"""Image corruptions by family and severity, as MedMNIST-C defines them: for robust training and to measure robustness.

Which families a modality has and how strong each severity is stands in corruptions.yaml, with its source. Nothing
moves: coordinates stay what they are. The frames of a volume get one and the same blur, factor or deposit, and noise of
their own each; a grey image stays grey. Everything random comes from the generator that is given.
"""

import functools
import io
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage, signal

SEVERITIES = (1, 2, 3, 4, 5)
Family = Callable[[np.ndarray, Any, float, np.random.Generator], np.ndarray]


class CorruptionError(ValueError):
    """A family or severity that there is not; the message names it."""


@functools.cache
def _table() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def _strengths(modality: str) -> dict[str, list[Any]]:
    return _table()["modalities"].get(modality, _table()["others"])


def families(modality: str) -> tuple[str, ...]:
    """The families of a modality (DICOM's code; unknown ones share a list)."""
    return tuple(_strengths(modality))


def known_families() -> frozenset[str]:
    return frozenset(_FAMILIES)


def covering() -> frozenset[str]:
    """The families that lay something over the image."""
    return frozenset(_table()["covers"])


def corrupt(
    frames_THWC: np.ndarray, family: str, severity: int, rng: np.random.Generator, *, modality: str = ""
) -> np.ndarray:
    """uint8 frames (t, h, w, 3), corrupted. severity: 1 to 5, as strong as the modality's table says, or where that has
    no such family, the first table that does. Raises CorruptionError."""
    tables = (_strengths(modality), *_table()["modalities"].values())
    strengths = next((table[family] for table in tables if family in table), None)
    if strengths is None:
        raise CorruptionError(f"family: expected one of {', '.join(sorted(_FAMILIES))}, found {family!r}")
    if severity not in SEVERITIES:
        raise CorruptionError(f"severity: expected 1 to 5, found {severity!r}")
    grey = bool((frames_THWC == frames_THWC[..., :1]).all())
    values = frames_THWC[..., :1] if grey else frames_THWC
    scale = min(values.shape[1:3]) / _table()["side"]
    out = _FAMILIES[family](values.astype(np.float32) / 255, strengths[severity - 1], scale, rng)
    out = np.clip(np.rint(out * 255), 0, 255).astype(np.uint8)
    return np.repeat(out, 3, axis=-1) if grey else out


def _pixelate(frames: np.ndarray, share: float, scale: float, rng: np.random.Generator) -> np.ndarray:
    height, width = frames.shape[1:3]
    small = max(int(width * share), 1), max(int(height * share), 1)
    box = Image.Resampling.BOX
    return _planes(frames, lambda plane: plane.resize(small, box).resize((width, height), box))


def _jpeg(frames: np.ndarray, quality: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    out = np.empty_like(frames)
    for t, frame in enumerate(np.rint(frames * 255).astype(np.uint8)):
        buffer = io.BytesIO()
        Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame).save(buffer, "JPEG", quality=quality)
        out[t] = np.asarray(Image.open(buffer), np.float32).reshape(frame.shape) / 255
    return out


def _gaussian_noise(frames: np.ndarray, sigma: float, scale: float, rng: np.random.Generator) -> np.ndarray:
    return frames + sigma * rng.standard_normal(frames.shape, np.float32)


def _speckle_noise(frames: np.ndarray, sigma: float, scale: float, rng: np.random.Generator) -> np.ndarray:
    return frames * (1 + sigma * rng.standard_normal(frames.shape, np.float32))


def _impulse_noise(frames: np.ndarray, share: float, scale: float, rng: np.random.Generator) -> np.ndarray:
    drawn = rng.random(frames.shape, np.float32)
    return np.where(drawn < share / 2, np.float32(0), np.where(drawn < share, np.float32(1), frames))


def _shot_noise(frames: np.ndarray, photons: float, scale: float, rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(frames * photons) / photons


def _gaussian_blur(frames: np.ndarray, width: float, scale: float, rng: np.random.Generator) -> np.ndarray:
    sigma = (0.3 * ((width - 1) * 0.5 - 1) + 0.8) * scale  # how a kernel's width is usually read as a sigma
    return ndimage.gaussian_filter(frames, (0, sigma, sigma, 0), mode="nearest")


def _defocus_blur(
    frames: np.ndarray, radius_sigma: tuple[float, float], scale: float, rng: np.random.Generator
) -> np.ndarray:
    radius, sigma = (value * scale for value in radius_sigma)
    reach = int(np.ceil(radius + 3 * sigma)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)  # how much of a pixel lies in the disk, nearly
    return _filtered(frames, ndimage.gaussian_filter(disk, sigma))


def _motion_blur(
    frames: np.ndarray, length_sigma: tuple[float, float], scale: float, rng: np.random.Generator
) -> np.ndarray:
    length, sigma = (value * scale for value in length_sigma)
    angle = np.deg2rad(rng.uniform(-45, 45))
    reach = int(np.ceil(length)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    along = np.arange(0, length + 0.25, 0.25)
    weights = np.exp(-(along**2) / (2 * sigma**2))
    along -= np.average(along, weights=weights)  # the trail lies about its own centre, so that nothing moves
    places = np.array([reach + along * np.sin(angle), reach + along * np.cos(angle)])
    for dy in (0, 1):  # each point of the trail shared by the four pixels around it
        for dx in (0, 1):
            at = np.floor(places).astype(int) + np.array([[dy], [dx]])
            near = np.prod(1 - np.abs(places - at), axis=0)
            np.add.at(kernel, (at[0], at[1]), near * weights)
    return _filtered(frames, kernel)


def _zoom_blur(
    frames: np.ndarray, largest_step: tuple[float, float], scale: float, rng: np.random.Generator
) -> np.ndarray:
    largest, step = largest_step
    height, width = frames.shape[1:3]
    total, count = frames.copy(), 1
    for factor in np.arange(1, largest + step / 2, step):
        w, h = width / factor, height / factor
        box = (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2
        total += _planes(frames, lambda p, b=box: p.resize((width, height), Image.Resampling.BILINEAR, box=b))
        count += 1
    return total / count


def _brightness(frames: np.ndarray, factor: float, scale: float, rng: np.random.Generator) -> np.ndarray:
    return frames * factor


def _contrast(frames: np.ndarray, factor: float, scale: float, rng: np.random.Generator) -> np.ndarray:
    weights = np.array([0.299, 0.587, 0.114], np.float32) if frames.shape[-1] == 3 else np.ones(1, np.float32)
    mean = float((frames @ weights).mean())
    return mean + factor * (frames - mean)


def _gamma(frames: np.ndarray, exponent: float, scale: float, rng: np.random.Generator) -> np.ndarray:
    return frames**exponent


def _saturate(frames: np.ndarray, more: float, scale: float, rng: np.random.Generator) -> np.ndarray:
    """More saturation of the same hue and value (HSV). What is grey has no hue, and stays grey."""
    value, least = frames.max(-1, keepdims=True), frames.min(-1, keepdims=True)
    saturation = np.divide(value - least, value, out=np.zeros_like(value), where=value > 0)
    grown = np.divide(np.minimum(saturation + more, 1), saturation, out=np.ones_like(value), where=saturation > 0)
    return value - (value - frames) * grown


def _stain_deposit(frames: np.ndarray, most: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Dark ragged marks with soft borders."""
    height, width = frames.shape[1:3]
    ink = Image.new("L", (width, height))
    for _ in range(int(rng.integers(1, most + 1))):
        x, y, radius = rng.uniform(0, width), rng.uniform(0, height), scale * rng.uniform(6, 14)
        turns = np.arange(16) * 2 * np.pi / 16
        reach = radius * rng.uniform(0.6, 1.4, 16)
        corners = np.stack([x + reach * np.cos(turns), y + reach * np.sin(turns)], 1)
        ImageDraw.Draw(ink).polygon([(float(a), float(b)) for a, b in corners], fill=230)
    soft = ndimage.gaussian_filter(np.asarray(ink, np.float32) / 255, scale)
    return frames * (1 - soft[..., None])


def _bubble(frames: np.ndarray, radius_count: tuple[float, int], scale: float, rng: np.random.Generator) -> np.ndarray:
    """Pale discs with a brighter rim."""
    radius, most = radius_count
    height, width = frames.shape[1:3]
    air = Image.new("L", (width, height))
    for _ in range(int(rng.integers(min(7, most), most + 1))):
        r = scale * rng.uniform(3, radius)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        for reach, alpha in ((r + 2 * scale, 130), (r, 100)):
            ImageDraw.Draw(air).ellipse((x - reach, y - reach, x + reach, y + reach), fill=alpha)
    alpha = np.asarray(air, np.float32)[..., None] / 255
    return frames * (1 - alpha) + alpha


def _black_corner(frames: np.ndarray, radius: float, scale: float, rng: np.random.Generator) -> np.ndarray:
    height, width = frames.shape[1:3]
    y, x = np.mgrid[:height, :width] + 0.5
    inside = np.hypot(x - width / 2, y - height / 2) <= radius * min(height, width) / 2
    return frames * inside[..., None].astype(np.float32)


def _characters(
    frames: np.ndarray, words_letters_height: tuple[int, int, float], scale: float, rng: np.random.Generator
) -> np.ndarray:
    words, letters, letter_height = words_letters_height
    height, width, channels = frames.shape[1:]
    font = ImageFont.load_default(max(letter_height * scale, 4))
    for _ in range(int(rng.integers(1, words + 1))):
        word = "".join(string.ascii_lowercase[i] for i in rng.integers(26, size=rng.integers(3, letters + 1)))
        ink = Image.new("L", (width, height))
        place = rng.uniform(0, 0.8) * width, rng.uniform(0, 0.9) * height
        ImageDraw.Draw(ink).text(place, word, fill=255, font=font)
        alpha = np.asarray(ink, np.float32)[..., None] / 255
        frames = frames * (1 - alpha) + alpha * rng.random(channels, np.float32)
    return frames


def _planes(frames: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Every channel of every frame as a picture of floats, changed."""
    planes = np.ascontiguousarray(frames.transpose(0, 3, 1, 2)).reshape(-1, *frames.shape[1:3])
    changed = np.stack([np.asarray(change(Image.fromarray(plane))) for plane in planes])
    return changed.reshape(frames.shape[0], frames.shape[3], *frames.shape[1:3]).transpose(0, 2, 3, 1)


def _filtered(frames: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolution with a square kernel of odd width and sum 1; beyond the border the image goes on as it ends."""
    reach = len(kernel) // 2
    padded = np.pad(frames, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    weights = (kernel / kernel.sum()).astype(np.float32)[None, :, :, None]
    return signal.fftconvolve(padded, weights, mode="valid", axes=(1, 2))


_FAMILIES: dict[str, Family] = {
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg,
    "gaussian_noise": _gaussian_noise,
    "speckle_noise": _speckle_noise,
    "impulse_noise": _impulse_noise,
    "shot_noise": _shot_noise,
    "gaussian_blur": _gaussian_blur,
    "defocus_blur": _defocus_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "brightness_up": _brightness,
    "brightness_down": _brightness,
    "contrast_up": _contrast,
    "contrast_down": _contrast,
    "gamma_corr_up": _gamma,
    "gamma_corr_down": _gamma,
    "saturate": _saturate,
    "stain_deposit": _stain_deposit,
    "bubble": _bubble,
    "black_corner": _black_corner,
    "characters": _characters,
}
