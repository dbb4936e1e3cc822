"""Record <-> the bytes of one tf.Example, as tensorflow-datasets lays out and reads it.

Media are flattened: `frames` holds the encoded frames of all media, and media[i] owns the next `media/frames` of them.
Sizes, spacings and the target are JSON text, because tf.Example keeps only float32.
"""

import dataclasses
import functools
import json
import threading
from typing import Any

import numpy as np

from data_pipelines.record import Media, Record, Turn

_TEXTS = ("id", "dataset", "split", "patient_id", "task", "language", "topic", "label_kind", "license", "source")
_MEDIA_TEXTS = ("kind", "modality", "size", "spacing_mm", "orientation", "window")


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
            "media": f.Sequence({**{name: f.Text() for name in _MEDIA_TEXTS}, "frames": f.Scalar(np.int32)}),
            "turns": f.Sequence({"role": f.Text(), "text": f.Text()}),
            "synthetic": f.Scalar(np.bool_),
        }
    )


@functools.cache
def _serializer() -> Any:
    load_tfds()
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    return ExampleSerializer(features().get_serialized_info())


def encode(record: Record) -> bytes:
    """The same record gives the same bytes."""
    media = [
        {
            "kind": m.kind,
            "modality": m.modality,
            "size": json.dumps(m.size),
            "spacing_mm": json.dumps(m.spacing_mm),
            "orientation": m.orientation,
            "window": m.window,
            "frames": len(m.frames),
        }
        for m in record.media
    ]
    values = {name: getattr(record, name) for name in (*_TEXTS, "heldout", "synthetic")} | {
        "target": json.dumps(record.target, ensure_ascii=False),
        "frames": [frame for m in record.media for frame in m.frames],
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


def decode(data: bytes) -> Record:
    values = _example_type().FromString(data).features.feature

    def texts(name: str) -> list[str]:
        return [value.decode() for value in values[name].bytes_list.value]

    columns = [texts(f"media/{name}") for name in _MEDIA_TEXTS]
    frames, media = iter(values["frames"].bytes_list.value), []
    for count, *row in zip(values["media/frames"].int64_list.value, *columns, strict=True):
        kind, modality, size, spacing, orientation, window = row
        spacing_mm = json.loads(spacing)
        media.append(
            Media(
                frames=tuple(next(frames) for _ in range(count)),
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
