"""Record shards on disk: ArrayRecord files that tensorflow-datasets reads without TensorFlow, and a manifest.

| file                                          | content                                                           |
| NAME-SPLIT.array_record-00000-of-00002        | one tf.Example per record (shard_format.py), random access        |
| dataset_info.json, features.json              | what `tfds.builder_from_directory(dir)` needs                     |
| manifest.json                                 | counts, quarantined inputs, duplicates, leaks, sha256 per shard   |

The same records in the same order give the same bytes. How a set is checked and published: publish.py.
"""

import bisect
import contextlib
import itertools
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from data_pipelines.parts import PartError, PartWriter, Rejected
from data_pipelines.paths import as_path, size
from data_pipelines.publish import (
    MANIFEST,
    SCHEMA,
    Rules,
    ShardError,
    check_target_directory,
    file_sha256,
    first_line,
    publish,
)
from data_pipelines.record import Record
from data_pipelines.shard_format import TFDS_LOCK, decode, load_tfds


class ShardWriter:
    """Writes a set record by record; a context manager that publishes on success and leaves nothing behind on failure.

    leaks: "error" (default) refuses a set in which a patient or an image is in two splits; "report" lists them in the
    manifest, for published datasets that are so. seed: stated in the manifest. Raises ShardError and RecordError.
    """

    def __init__(
        self,
        out_dir: str | Path,
        name: str,
        *,
        leaks: str = "error",
        shard_bytes: int = 256 << 20,
        seed: int | None = None,
    ) -> None:
        check_name(name)
        self.out, self.name, self.rules, self.shard_bytes = Path(out_dir), name, Rules(leaks=leaks), shard_bytes
        self.seed = seed
        check_target_directory(self.out)
        self.partial = self.out.with_name(self.out.name + ".partial")
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        self._parts: list[Path] = []
        self._part = self._next()
        self.manifest: dict[str, Any] | None = None

    def _next(self) -> PartWriter:
        self._parts.append(self.partial / f"{len(self._parts):05d}")
        return PartWriter(self._parts[-1])

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            with contextlib.suppress(OSError, RuntimeError):  # what could not be written is of no use
                self._part.abandon()
            shutil.rmtree(self.partial, ignore_errors=True)
            shutil.rmtree(self.out.with_name(self.out.name + ".set"), ignore_errors=True)

    def add(self, record: Record) -> None:
        try:
            if self._part.bytes >= self.shard_bytes:
                self._part.close()
                self._part = self._next()
            self._part.write(record)
        except PartError as error:
            raise ShardError(f"{self.out}: {error.reason}") from error

    def quarantine(self, id: str, reason: str) -> None:
        """Notes an input that could not be used. `id` must not name a patient; `reason` is a fixed phrase."""
        self._part.write(Rejected(id, reason))

    def close(self) -> dict[str, Any]:
        """Finishes the shards, checks the set, publishes it under out_dir and returns the manifest."""
        if self.manifest is None:
            try:
                self._part.close()
            except PartError as error:
                raise ShardError(f"{self.out}: {error.reason}") from error
            self.manifest = publish(self._parts, self.out, self.name, self.rules, self.seed)
        return self.manifest


def check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ShardError(f"dataset name: expected lower case letters, digits and _, found {name!r}")


def read_manifest(directory: str | Path) -> dict[str, Any]:
    """The manifest of a shard set. Raises ShardError naming the directory when there is none that can be read."""
    path = as_path(directory) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ShardError(f"{directory}: not a shard set (no {MANIFEST})") from error
    except (OSError, ValueError) as error:
        raise ShardError(f"{path}: cannot read: {first_line(error)}") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else manifest
        raise ShardError(f"{path}: schema: expected {SCHEMA}, found {found!r}; prepare the data again")
    return manifest


def verify(directory: str | Path, split: str | None = None) -> dict[str, Any]:
    """Reads every shard (of one split) and compares its sha256 with the manifest's; returns the manifest."""
    manifest = read_manifest(directory)
    for shard in manifest["shards"]:
        path = as_path(directory) / shard["file"]
        if split in (None, shard["split"]):
            _check_size(path, shard)
            if file_sha256(path) != shard["sha256"]:
                raise ShardError(f"{path}: corrupt shard: sha256 differs from the manifest's")
    return manifest


def open_shards(directory: str | Path, split: str) -> "RecordSource":
    """One split of a shard set as a random-access source of Records. Sizes of the files are checked against the
    manifest now; a record that cannot be read later is reported with its file."""
    return RecordSource(as_path(directory), split)


class RecordSource:
    """`source[i] -> Record`, `len(source)`; picklable, so that worker processes open their own files."""

    def __init__(self, directory: Path, split: str) -> None:
        self.directory, self.split = directory, split
        self.manifest = read_manifest(directory)
        self.shards = [shard for shard in self.manifest["shards"] if shard["split"] == split]
        if not self.shards:
            have = ", ".join(self.manifest["records"])
            raise ShardError(f"{directory}: split: expected one of {have}, found {split!r}")
        for shard in self.shards:
            _check_size(directory / shard["file"], shard)
        self._starts = list(itertools.accumulate((shard["records"] for shard in self.shards[:-1]), initial=0))
        self._source: Any = None

    @property
    def name(self) -> str:
        return self.manifest["name"]

    def __len__(self) -> int:
        return sum(shard["records"] for shard in self.shards)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.directory}: record {index} of {len(self)}")
        try:
            if self._source is None:
                self._source = _data_source(self.directory, self.split)
            start = self._starts[self._shard(index)]
            return decode(self._source[index], lambda position: self._source[start + position])
        except Exception as error:  # the reader raises a different type for each kind of damage
            raise ShardError(f"{self._file(index)}: corrupt shard: {first_line(error)}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None}

    def _shard(self, index: int) -> int:
        return bisect.bisect_right(self._starts, index) - 1

    def _file(self, index: int) -> Path:
        return self.directory / self.shards[self._shard(index)]["file"]


def _data_source(directory: Path, split: str) -> Any:
    tfds = load_tfds()
    # Raw, because `decode` needs a tenth of the time of tensorflow-datasets' own parsing.
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    with TFDS_LOCK:
        return tfds.builder_from_directory(directory).as_data_source(split, deserialize_method=raw)


def _check_size(path: Path, shard: Mapping[str, Any]) -> None:
    found = size(path) if path.exists() else None
    if found is None:
        raise ShardError(f"{path}: missing shard")
    if found != shard["bytes"]:
        raise ShardError(f"{path}: corrupt shard: expected {shard['bytes']} bytes, found {found}")
