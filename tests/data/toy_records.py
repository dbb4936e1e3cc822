"""Small records with real PNG bytes, for the tests of this folder."""

import io

import numpy as np
from PIL import Image

from data_pipelines.record import MEDIA_TOKEN, Media, Record, Turn
from umit_jax.targets import text_target


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def noise(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def image(height: int = 40, width: int = 56, seed: int = 0) -> Media:
    return Media((png(noise(height, width, seed)),), "image", "CT", (width, height), (0.3225, 0.3), "LP", "lung")


def volume(depth: int = 5, height: int = 30, width: int = 44, seed: int = 0) -> Media:
    frames = tuple(png(noise(height, width, seed + i)) for i in range(depth))
    return Media(frames, "volume", "MR", (width, height, depth), (0.7, 0.7, 3.0), "LPS", "")


def record(
    number: int = 0,
    *,
    split: str = "train",
    patient: str | None = None,
    task: str = "vqa",
    question: str = "Is the liver seen?",
    answer: str = "yes",
    media: tuple[Media, ...] | None = None,
    language: str = "en",
    **fields,
) -> Record:
    media = (image(seed=number),) if media is None else media
    return Record(
        id=f"toy/{number}",
        dataset="toy",
        split=split,
        patient_id=patient or f"p{number}",
        task=task,
        language=language,
        topic="seen/liver",
        media=media,
        turns=(Turn("user", MEDIA_TOKEN * len(media) + question), Turn("assistant", answer)),
        target=text_target(answer),
        label_kind="synthetic",
        license="CC0-1.0",
        source="random pixels",
        synthetic=True,
        **fields,
    )
