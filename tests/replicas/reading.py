"""A prepared replica, read back for comparing."""

import dataclasses
import hashlib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.media.raster import decode
from data_pipelines.preparation import prepare
from data_pipelines.record import SPLITS, Media, Record
from data_pipelines.shards import open_shards


@dataclasses.dataclass(frozen=True)
class Prepared:
    """manifest, and the records by id."""

    manifest: Mapping[str, Any]
    records: Mapping[str, Record]

    @property
    def quarantined(self) -> dict[str, str]:
        return {row["id"]: row["reason"] for row in self.manifest["quarantined"]}

    def said(self) -> dict[str, tuple[str, str, str, str]]:
        """{id: (split, task, language, answer)}"""
        return {id: (r.split, r.task, r.language, r.turns[-1].text) for id, r in self.records.items()}


def prepared(name: str, replica: Callable[[Path], dict[str, Any]], root: Path, **options: Any) -> Prepared:
    """The replica written below `root` and prepared with its own options and these."""
    module = importlib.import_module(f"data_pipelines.sources.{name}")
    manifest = prepare(module.converter(**(replica(root / "raw") | options)), root / "out")
    assert not (root / "out.partial").exists()
    splits = [split for split in SPLITS if split in manifest["records"]]
    records = [record for split in splits for record in open_shards(root / "out", split)]
    assert len({record.id for record in records}) == len(records)
    return Prepared(manifest, {record.id: record for record in records})


def contents(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def frames(media: Media) -> np.ndarray:
    """Pixels (d, h, w, 3)."""
    return np.stack([decode(frame) for frame in media.frames])
