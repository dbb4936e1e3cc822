"""Record shards on disk: ArrayRecord files that tensorflow-datasets reads without TensorFlow, and a manifest.

| file                                          | content                                                           |
| NAME-SPLIT.array_record-00000-of-00002        | one tf.Example per record, group size 1 (random access)           |
| dataset_info.json, features.json              | what `tfds.builder_from_directory(dir)` needs                     |
| manifest.json                                 | counts, quarantined inputs, duplicates, leaks, sha256 per shard   |

A set is written aside, record by record, and renamed when it is whole: a directory with a manifest is complete. The
same records in the same order give the same bytes.
"""

import collections
import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from data_pipelines.integrity import IntegrityIndex
from data_pipelines.record import SPLITS, Record, check_record
from data_pipelines.shard_format import TFDS_LOCK, decode, encode, features, load_tfds

SCHEMA = 1
MANIFEST = "manifest.json"


class ShardError(ValueError):
    """A shard set that cannot be written or read; one line naming the directory or file."""


class _Split:
    """The open shard of one split and the finished ones before it."""

    def __init__(self, folder: Path, split: str, shard_bytes: int) -> None:
        self.folder, self.split, self.shard_bytes = folder, split, shard_bytes
        self.lengths: list[int] = []
        self.total_bytes = 0
        self.writer: Any = None

    def path(self, index: int) -> Path:
        return self.folder / f"{self.split}.{index:05d}.partial"

    def write(self, data: bytes) -> None:
        if self.writer is None:
            from array_record.python.array_record_module import ArrayRecordWriter

            # Frames are already compressed, so zstd buys nothing over them but time.
            self.writer = ArrayRecordWriter(str(self.path(len(self.lengths))), "group_size:1,zstd:1")
            self.lengths.append(0)
            self.bytes = 0
        self.writer.write(data)
        self.lengths[-1] += 1
        self.bytes += len(data)
        self.total_bytes += len(data)
        if self.bytes >= self.shard_bytes:
            self.close()

    def close(self) -> None:
        writer, self.writer = self.writer, None
        if writer is not None:
            writer.close()


class ShardWriter:
    """Writes one dataset's records; a context manager that closes on success and leaves nothing behind on failure.

    leaks: "error" (default) refuses a set in which a patient or an image is in two splits; "report" lists them in the
    manifest, for published datasets that are so. Raises ShardError and RecordError.
    """

    def __init__(self, out_dir: str | Path, name: str, *, leaks: str = "error", shard_bytes: int = 256 << 20) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ShardError(f"dataset name: expected lower case letters, digits and _, found {name!r}")
        if leaks not in ("error", "report"):
            raise ShardError(f"leaks: expected error | report, found {leaks!r}")
        self.out, self.name, self.on_leak = Path(out_dir), name, leaks
        if self.out.exists() and not (self.out / MANIFEST).exists() and any(self.out.iterdir()):
            raise ShardError(f"{self.out}: exists, is not empty and holds no {MANIFEST}; not overwritten")
        self.partial = self.out.with_name(self.out.name + ".partial")
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        self._splits = {split: _Split(self.partial, split, shard_bytes) for split in SPLITS}
        self._index = IntegrityIndex()
        self._records = {split: collections.Counter() for split in SPLITS}
        self._tallies = {key: collections.Counter() for key in ("licenses", "label_kinds", "languages", "modalities")}
        self._synthetic = 0
        self._quarantined: list[dict[str, str]] = []
        self.manifest: dict[str, Any] | None = None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self._discard()

    def add(self, record: Record) -> None:
        check_record(record)
        try:
            self._splits[record.split].write(encode(record))
        except Exception as error:
            raise ShardError(f"{self.out}: cannot write: {_first_line(error)}") from error
        self._index.add(record)
        self._records[record.split][record.task] += 1
        self._synthetic += record.synthetic
        self._tallies["licenses"][record.license] += 1
        self._tallies["label_kinds"][record.label_kind] += 1
        self._tallies["languages"][record.language] += 1
        self._tallies["modalities"].update(sorted({m.modality for m in record.media}))

    def quarantine(self, id: str, reason: str) -> None:
        """Notes an input that could not be used. `id` must not name a patient; `reason` is a fixed phrase."""
        self._quarantined.append({"id": id, "reason": reason})

    def close(self) -> dict[str, Any]:
        """Finishes the shards, checks the set, publishes it under out_dir and returns the manifest."""
        if self.manifest is not None:
            return self.manifest
        try:
            for split in self._splits.values():
                split.close()
            manifest = self._finish()
            (self.partial / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")
        except (OSError, RuntimeError) as error:  # a full disk is a RuntimeError of the ArrayRecord writer
            raise ShardError(f"{self.out}: cannot write: {_first_line(error)}") from error
        if self.out.exists():
            old = self.out.with_name(self.out.name + ".old")
            shutil.rmtree(old, ignore_errors=True)
            self.out.rename(old)
            self.partial.rename(self.out)
            shutil.rmtree(old)
        else:
            self.partial.rename(self.out)
        self.manifest = manifest
        return manifest

    def _discard(self) -> None:
        for split in self._splits.values():
            with contextlib.suppress(OSError, RuntimeError):  # what could not be written is of no use
                split.close()
        shutil.rmtree(self.partial, ignore_errors=True)

    def _finish(self) -> dict[str, Any]:
        reasons = collections.Counter(q["reason"] for q in self._quarantined)
        if not self._index.ids:
            why = ", ".join(f"{reason} ({n})" for reason, n in reasons.most_common()) or "no input at all"
            raise ShardError(f"{self.out}: no usable record; quarantined {len(self._quarantined)}: {why}")
        shards = self._publish_shards()
        source = _Numbered(self.partial, list(self._index.splits))
        for number, earlier in self._index.repeated_ids():
            raise ShardError(f"{self.out}: record id {source[number]!r} is used twice (records {earlier} and {number})")
        duplicates = [{"id": source[a], "same_as": source[b]} for a, b in self._index.duplicates()]
        leaks, by_region = self._index.leaks(source.__getitem__)
        if leaks and self.on_leak == "error":
            first = ", ".join(f"{split} {id}" for split, id in leaks[0]["records"].items())
            raise ShardError(
                f"{self.out}: {len(leaks)} leaks between splits, the first: same {leaks[0]['kind']} in {first}"
            )
        return {
            "schema": SCHEMA,
            "name": self.name,
            "synthetic": self._synthetic == len(self._index.ids),
            "synthetic_records": self._synthetic,
            "records": {split: dict(sorted(tasks.items())) for split, tasks in self._records.items() if tasks},
            "quarantined": self._quarantined,
            "quarantined_reasons": dict(reasons.most_common()),
            "duplicates": duplicates,
            "leaks": leaks,
            "patients_split_by_region": by_region,
            **{key: dict(sorted(tally.items())) for key, tally in self._tallies.items()},
            "shards": shards,
        }

    def _publish_shards(self) -> list[dict[str, Any]]:
        """Gives the shards their final names and writes the tensorflow-datasets files; returns a row per shard."""
        tfds, shards, infos = load_tfds(), [], []
        for name, split in self._splits.items():
            for i, length in enumerate(split.lengths):
                path = self.partial / f"{self.name}-{name}.array_record-{i:05d}-of-{len(split.lengths):05d}"
                split.path(i).rename(path)
                row = {"file": path.name, "split": name, "records": length, "bytes": path.stat().st_size}
                shards.append({**row, "sha256": file_sha256(path)})
            if split.lengths:
                info = tfds.core.SplitInfo(name=name, shard_lengths=split.lengths, num_bytes=split.total_bytes)
                infos.append(info)
        tfds.folder_dataset.write_metadata(
            data_dir=self.partial, features=features(), split_infos=infos, version="1.0.0", check_data=False
        )
        return shards


class _Numbered:
    """Ids of records by their number in order of writing, read back from the shards."""

    def __init__(self, folder: Path, splits: Sequence[int]) -> None:
        self.folder, self.splits, self.sources = folder, splits, {}
        self.position = np.zeros(len(splits), np.int64)
        for split in set(splits):
            own = np.asarray(splits) == split
            self.position[own] = np.arange(own.sum())

    def __getitem__(self, number: int) -> str:
        split = self.splits[number]
        if split not in self.sources:
            self.sources[split] = _data_source(self.folder, SPLITS[split])
        return decode(self.sources[split][int(self.position[number])]).id


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(directory: str | Path) -> dict[str, Any]:
    """The manifest of a shard set. Raises ShardError naming the directory when there is none that can be read."""
    path = Path(directory) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ShardError(f"{directory}: not a shard set (no {MANIFEST})") from error
    except (OSError, ValueError) as error:
        raise ShardError(f"{path}: cannot read: {_first_line(error)}") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else manifest
        raise ShardError(f"{path}: schema: expected {SCHEMA}, found {found!r}; prepare the data again")
    return manifest


def verify(directory: str | Path, split: str | None = None) -> dict[str, Any]:
    """Reads every shard (of one split) and compares its sha256 with the manifest's; returns the manifest."""
    manifest = read_manifest(directory)
    for shard in manifest["shards"]:
        path = Path(directory) / shard["file"]
        if split in (None, shard["split"]):
            _check_size(path, shard)
            if file_sha256(path) != shard["sha256"]:
                raise ShardError(f"{path}: corrupt shard: sha256 differs from the manifest's")
    return manifest


def open_shards(directory: str | Path, split: str) -> "RecordSource":
    """One split of a shard set as a random-access source of Records. Sizes of the files are checked against the
    manifest now; a record that cannot be read later is reported with its file."""
    return RecordSource(Path(directory), split)


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
            return decode(self._source[index])
        except Exception as error:  # the reader raises a different type for each kind of damage
            raise ShardError(f"{self._file(index)}: corrupt shard: {_first_line(error)}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None}

    def _file(self, index: int) -> Path:
        for shard in self.shards:
            if index < shard["records"]:
                return self.directory / shard["file"]
            index -= shard["records"]
        raise IndexError(index)


def _data_source(directory: Path, split: str) -> Any:
    tfds = load_tfds()
    # Raw, because `decode` needs a tenth of the time of tensorflow-datasets' own parsing.
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    with TFDS_LOCK:
        return tfds.builder_from_directory(directory).as_data_source(split, deserialize_method=raw)


def _check_size(path: Path, shard: Mapping[str, Any]) -> None:
    found = path.stat().st_size if path.exists() else None
    if found is None:
        raise ShardError(f"{path}: missing shard")
    if found != shard["bytes"]:
        raise ShardError(f"{path}: corrupt shard: expected {shard['bytes']} bytes, found {found}")


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return os.linesep.join(text.splitlines()[:1])[:200]
