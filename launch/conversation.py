"""Image files and questions on a command line -> a Record, the same that training samples are made of."""

import pathlib
from typing import Any

from data_pipelines.media import MediaError
from data_pipelines.media.show import Layout, show
from data_pipelines.record import MEDIA_TOKEN, Media, Record, Turn
from launch.cli import UsageError

ROLES = ("user", "assistant")


def conversation_record(
    messages: list[dict[str, Any]],
    window: str,
    layout: Layout = Layout(),  # noqa: B008
) -> Record:
    """The record of [{role, content, images}], which must end with a user's message and may begin with a system's.

    images: files, each placed before the message's text unless the text has a place for each (MEDIA_TOKEN).
    """
    media: list[Media] = []
    turns: list[Turn] = []
    for i, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ("system", *ROLES) or not isinstance(content, str) or not content.strip():
            raise UsageError(f"message {i}: expected a role (system, user or assistant) and content that is text")
        expected = ROLES[(i - (messages[0].get("role") == "system")) % 2]
        if role != expected and (i or role != "system"):
            raise UsageError(f"message {i}: expected role {expected!r}, found {role!r}")
        images = message.get("images", [])
        if role != "user" and images:
            raise UsageError(f"message {i}: only a user's message has images")
        media += [read_media(pathlib.Path(path), window, layout) for path in images]
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


def read_media(path: pathlib.Path, window: str, layout: Layout) -> Media:
    """A PNG, JPEG, TIFF, DICOM or NIfTI file, or a folder with one DICOM series, told apart by content.

    window: CT preset; "" takes the file's own or the modality's. layout: of volumes. See media/show.
    """
    if not path.exists():
        raise UsageError(f"no such file: {path}")
    try:
        return show(path, window=window, refused=(), layout=layout).media
    except MediaError as error:
        raise UsageError(f"{path}: {error}") from error
