"""Record <-> the bytes of one tf.Example, as tensorflow-datasets lays out and reads it.

Media are flattened: `frames` holds the encoded frames of all media, and media[i] owns the next `media/frames` of them.
A medium that an earlier record of the same shard has too (the next question about an image) owns none: `media/held_by`
is the position of that record in the shard and `media/held_as` which of its media it is, -1 otherwise. Sizes, spacings
and the target are JSON text, because tf.Example keeps only float32.
"""

import dataclasses
import functools
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from data_pipelines.record import Media, Record, Turn

_TEXTS = ("id", "dataset", "split", "patient_id", "task", "language", "topic", "label_kind", "license", "source")
_MEDIA_TEXTS = ("kind", "modality", "size", "spacing_mm", "orientation", "window")
_MEDIA_NUMBERS = ("frames", "held_by", "held_as")
_OWN = (-1, -1)

Held = tuple[int, int]  # position of a record in its shard, and which of its media

# tensorflow-datasets imports parts of itself when first used, and deadlocks when two threads set that off at once.
TFDS_LOCK = threading.RLock()


def load_tfds() -> Any:
    """The tensorflow_datasets module, imported when first asked for: slow, and not needed to look at a manifest."""
    with TFDS_LOCK:
        import tensorflow_datasets
    return tensorflow_datasets


@functools.cache
def features() -> Any:
    """The tensorflow-datasets features of a Record, as `as_data_source` yields them."""
    f = load_tfds().features
    return f.FeaturesDict(
        {name: f.Text() for name in (*_TEXTS, "heldout", "target")}
        | {
            "frames": f.Sequence(f.Text()),
            "media": f.Sequence(
                {name: f.Text() for name in _MEDIA_TEXTS} | {name: f.Scalar(np.int32) for name in _MEDIA_NUMBERS}
            ),
            "turns": f.Sequence({"role": f.Text(), "text": f.Text()}),
            "synthetic": f.Scalar(np.bool_),
        }
    )


@functools.cache
def _serializer() -> Any:
    load_tfds()
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    return ExampleSerializer(features().get_serialized_info())


def encode(record: Record, held: Mapping[int, Held]) -> bytes:
    """The same record gives the same bytes. held: where the frames are of those media that do not own theirs."""
    media = [
        {
            "kind": m.kind,
            "modality": m.modality,
            "size": json.dumps(m.size),
            "spacing_mm": json.dumps(m.spacing_mm),
            "orientation": m.orientation,
            "window": m.window,
            "frames": 0 if i in held else len(m.frames),
            **dict(zip(("held_by", "held_as"), held.get(i, _OWN), strict=True)),
        }
        for i, m in enumerate(record.media)
    ]
    values = {name: getattr(record, name) for name in (*_TEXTS, "heldout", "synthetic")} | {
        "target": json.dumps(record.target, ensure_ascii=False),
        "frames": [frame for i, m in enumerate(record.media) if i not in held for frame in m.frames],
        "media": media,
        "turns": [dataclasses.asdict(turn) for turn in record.turns],
    }
    example = _serializer().get_tf_example(features().encode_example(values))
    # A protobuf map has no order of its own: without this, two runs would differ.
    return example.SerializeToString(deterministic=True)


@functools.cache
def _example_type() -> Any:
    with TFDS_LOCK:
        from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example


def decode(data: bytes, fetch: Callable[[int], bytes]) -> Record:
    """The record, with the frames of all its media. fetch: the bytes of the record at a position of the same shard."""
    values = _example_type().FromString(data).features.feature

    def texts(name: str) -> list[str]:
        return [value.decode() for value in values[name].bytes_list.value]

    columns = [texts(f"media/{name}") for name in _MEDIA_TEXTS]
    places = zip(*(values[f"media/{name}"].int64_list.value for name in _MEDIA_NUMBERS[1:]), strict=True)
    media = []
    for own, place, *row in zip(_frames(values), places, *columns, strict=True):
        kind, modality, size, spacing, orientation, window = row
        spacing_mm = json.loads(spacing)
        media.append(
            Media(
                frames=own if place == _OWN else _held_frames(fetch(place[0]), place[1]),
                kind=kind,
                modality=modality,
                size=tuple(json.loads(size)),
                spacing_mm=None if spacing_mm is None else tuple(spacing_mm),
                orientation=orientation,
                window=window,
            )
        )
    fields = {name: texts(name)[0] for name in (*_TEXTS, "heldout")}
    turns = zip(texts("turns/role"), texts("turns/text"), strict=True)
    return Record(
        **fields,
        media=tuple(media),
        turns=tuple(Turn(role, text) for role, text in turns),
        target=json.loads(texts("target")[0]),
        synthetic=bool(values["synthetic"].int64_list.value[0]),
    )


def _frames(values: Any) -> list[tuple[bytes, ...]]:
    """The frames that each of a record's media owns."""
    frames = iter(values["frames"].bytes_list.value)
    return [tuple(next(frames) for _ in range(count)) for count in values["media/frames"].int64_list.value]


def _held_frames(data: bytes, which: int) -> tuple[bytes, ...]:
    return _frames(_example_type().FromString(data).features.feature)[which]
