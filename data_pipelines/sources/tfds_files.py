"""Files of a prepared TensorFlow Datasets set, read without TensorFlow: where records are, and what is in one.

| format       | random access                                                                                      |
| array_record | by number                                                                                          |
| tfrecord     | records follow each other: length (8 bytes), its checksum (4), data, checksum (4). One pass over the |
|              | lengths finds where they start; checksums are not compared, so a damaged image shows when decoded  |

A record is a tf.Example: {feature path: values}, with the files of images as they were encoded.
"""

import dataclasses
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.publish import read_raw
from data_pipelines.shard_format import TFDS_LOCK, load_tfds
from data_pipelines.sources.layout import LayoutError

ROWS = 64  # of a span
_LENGTH = struct.Struct("<Q4x")
_FORMATS = ("array_record", "tfrecord")


@dataclasses.dataclass(frozen=True)
class Span:
    """Up to ROWS records of one file: the first is number `row` of its split; position: its number in the file, or for
    tfrecord its byte."""

    file: str
    position: int
    count: int
    row: int


def find_version(source: Path, dataset: str) -> Path:
    """The folder with features.json: `source` itself, or its newest version of the data set. Raises LayoutError."""
    if (source / "features.json").is_file():
        return source
    base = source / dataset
    found = [path.parent for path in base.glob("**/features.json")] if dataset and base.is_dir() else []
    if not found:
        wanted = f"{dataset or 'NAME'}/VERSION/features.json"
        raise LayoutError(f"{source}: expected {wanted}: a data set prepared by TensorFlow Datasets 4 or newer")
    configs = sorted({path.parent for path in found})
    if len(configs) > 1:
        names = ", ".join(f"tfds:{path.relative_to(source).as_posix()}" for path in configs)
        raise LayoutError(f"{base}: several configurations; choose one of {names}")
    return max(found, key=lambda path: [int(part) if part.isdigit() else -1 for part in path.name.split(".")])


def open_builder(folder: Path) -> Any:
    """The data set in a version's folder. Raises LayoutError."""
    tfds = load_tfds()
    try:
        with TFDS_LOCK:
            builder = tfds.builder_from_directory(folder)
            kind = builder.info.file_format.value
    except Exception as error:  # whatever its readers meet in a damaged file
        line = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise LayoutError(f"{folder}: not a prepared data set: {line}") from None
    if kind not in _FORMATS:
        raise LayoutError(f"{folder}: file format: expected {' or '.join(_FORMATS)}, found {kind}")
    return builder


def spans(folder: Path, builder: Any, split: str) -> Iterator[Span]:
    """All records of a split, in order. Raises LayoutError where its files are not whole."""
    row = 0
    info = builder.info.splits[split]
    for path, count in zip(info.filepaths, info.shard_lengths, strict=True):
        file = folder / Path(path).name
        if not file.is_file():
            raise LayoutError(f"{file}: not there")
        starts = _tfrecord_starts(file, count) if builder.info.file_format.value == "tfrecord" else range(count)
        for first in range(0, count, ROWS):
            yield Span(file.name, starts[first], min(ROWS, count - first), row + first)
        row += count


def _tfrecord_starts(file: Path, count: int) -> Sequence[int]:
    starts, at, size = [], 0, file.stat().st_size
    with open(file, "rb", buffering=1 << 16) as opened:
        while at < size:
            header = opened.read(12)
            length = _LENGTH.unpack(header)[0] if len(header) == 12 else size
            starts.append(at)
            at += length + 16
            opened.seek(length + 4, os.SEEK_CUR)
    if at != size or len(starts) != count:
        cut = ", the last one cut" if at != size else ""
        raise LayoutError(f"{file}: expected {count} whole records, found {len(starts)}{cut}")
    return starts


def read_span(folder: Path, span: Span) -> Iterator[Mapping[str, Any]]:
    """The records of a span: {feature path: values}, a list of bytes or numbers each."""
    path = folder / span.file
    if ".tfrecord" in span.file:
        data = _tfrecords(path, span)
    else:
        data = iter(read_raw(path, range(span.position, span.position + span.count)))
    with TFDS_LOCK:
        from tensorflow_datasets.proto import tf_example_pb2
    for record in data:
        features = tf_example_pb2.Example.FromString(record).features.feature
        yield {name: list(getattr(f, f.WhichOneof("kind") or "bytes_list").value) for name, f in features.items()}


def _tfrecords(path: Path, span: Span) -> Iterator[bytes]:
    with open(path, "rb") as opened:
        opened.seek(span.position)
        for _ in range(span.count):
            (length,) = _LENGTH.unpack(opened.read(12))
            yield opened.read(length)
            opened.seek(4, os.SEEK_CUR)
