"""Image files and questions on a command line -> a Record, the same that training samples are made of."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from data_pipelines.media import MediaError, dicom, nifti, raster, series
from data_pipelines.media.volume import Volume, default_window, render
from data_pipelines.record import MEDIA_TOKEN, Media, Record, Turn
from launch.cli import UsageError

MAX_SLICES = 32  # a volume is shown as at most this many slices (the paper's volumes have 32)
ROLES = ("user", "assistant")


def conversation_record(messages: list[dict[str, Any]], window: str) -> Record:
    """The record of [{role, content, images}], which must end with a user's message.

    images: files, each placed before the message's text unless the text has a place for each (MEDIA_TOKEN).
    """
    media: list[Media] = []
    turns: list[Turn] = []
    for i, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES or not isinstance(content, str) or not content.strip():
            raise UsageError(f"message {i}: expected a role (user or assistant) and content that is text")
        if role != ROLES[i % 2]:
            raise UsageError(f"message {i}: expected role {ROLES[i % 2]!r}, found {role!r}")
        images = message.get("images", [])
        if role == "assistant" and images:
            raise UsageError(f"message {i}: only a user's message has images")
        media += [read_media(pathlib.Path(path), window) for path in images]
        places = content.count(MEDIA_TOKEN)
        if places not in (0, len(images)):
            raise UsageError(f"message {i}: {len(images)} images but {places} times {MEDIA_TOKEN}")
        turns.append(Turn(role, content if places else MEDIA_TOKEN * len(images) + content))
    if not turns or turns[-1].role != "user":
        raise UsageError("the conversation must end with a user's message")
    return Record(
        id="question",
        dataset="command line",
        split="test",
        patient_id="unknown",
        task="vqa",
        language="en",
        topic="question",
        media=tuple(media),
        turns=tuple(turns),
        target={"kind": "text", "text": ""},
        label_kind="manual",
        license="unknown",
        source="command line",
    )


def read_media(path: pathlib.Path, window: str = "") -> Media:
    """A PNG, JPEG, TIFF, DICOM or NIfTI file, or a folder with one DICOM series, told apart by content.

    window: CT preset; "" takes the modality's. A volume is shown in axial slices.
    """
    if not path.exists():
        raise UsageError(f"no such file: {path}")
    try:
        return _read(path, window)
    except MediaError as error:
        raise UsageError(f"{path}: {error}") from error


def _read(path: pathlib.Path, window: str) -> Media:
    if path.is_dir():
        volume, _ = series.read_series(sorted(p for p in path.iterdir() if p.is_file()))
        return _volume_media(volume, window)
    with open(path, "rb") as file:
        head = file.read(352)
    if nifti.is_nifti(head):
        return _volume_media(nifti.read_nifti(path, modality="CT"), window)
    if not dicom.is_dicom(head):
        pixels = raster.read_image(path)
        return Media((raster.encode_png(pixels),), "image", "OT", (pixels.shape[1], pixels.shape[0]))
    image = dicom.read_dicom(path)
    if len(image.frames) > 1:
        return _volume_media(series.volume_of(image), window)
    preset = (window or default_window("CT")) if image.modality == "CT" else ""
    pixels = image.render(preset)
    size = (pixels.shape[1], pixels.shape[0])
    return Media((raster.encode_png(pixels),), "image", image.modality, size, image.spacing_mm, window=preset)


def _volume_media(volume: Volume, window: str) -> Media:
    width, height, depth = volume.size
    size = (width, height, min(depth, MAX_SLICES))
    preset = (window or default_window("CT")) if volume.modality == "CT" else ""
    frames, shown = render(dataclasses.replace(volume), preset, size)
    encoded = tuple(raster.encode_png(np.ascontiguousarray(frame)) for frame in frames)
    return Media(encoded, "volume", volume.modality, shown.size, shown.spacing_mm, shown.orientation, preset)
