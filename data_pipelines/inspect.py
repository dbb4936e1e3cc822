"""What is in a shard set, as plain JSON values: the summary and the records that `umit inspect` prints."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipelines.integrity import media_sha256
from data_pipelines.record import Media, Record
from data_pipelines.shards import open_shards, verify


def summarize(directory: str | Path) -> dict[str, Any]:
    """The manifest, after reading every shard and comparing checksums. Raises ShardError naming a damaged file."""
    return {"kind": "shards", **verify(directory)}


def read_back(directory: str | Path, count: int | None = None, split: str | None = None) -> Iterator[dict[str, Any]]:
    """The first `count` records (all when None) as JSON objects, split after split in the order of the manifest."""
    splits = [split] if split else list(verify(directory)["records"])
    sources = (open_shards(directory, name) for name in splits)
    records = (source[i] for source in sources for i in range(len(source)))
    return (record_json(record) for record in itertools.islice(records, count))


def record_json(record: Record) -> dict[str, Any]:
    """A record with each of its media replaced by shape (rows, columns; slices first for a volume), size and spacing
    in (x, y, z) order, and the sha256 of its encoded bytes."""
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    return fields | {
        "media": [_media_json(media) for media in record.media],
        "turns": [dataclasses.asdict(turn) for turn in record.turns],
    }


def _media_json(media: Media) -> dict[str, Any]:
    return {
        "kind": media.kind,
        "modality": media.modality,
        "shape": list(reversed(media.size)),
        "size": list(media.size),
        "spacing_mm": None if media.spacing_mm is None else list(media.spacing_mm),
        "orientation": media.orientation,
        "window": media.window,
        "sha256": media_sha256(media).hex(),
    }
