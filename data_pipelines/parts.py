"""Parts: the records of one stretch of the input, on disk, with the few facts that checking a whole set needs.

| file in the folder        | content                                                                |
| SPLIT.array_record        | one tf.Example per record, group size 1 (random access)                |
| facts.npz                 | digests of the records (integrity.py)                                  |
| near.npy, where near-     | fingerprints of the images, each once (near.py); their digests are in  |
| duplicates are looked for | facts.npz                                                              |
| facts.json                | counts and quarantined inputs; written last: with it the part is whole |

Parts are what workers write, one after the other or at once, and what publish.py makes one shard set of. The same
records in the same order give the same bytes, whoever writes them. An image or volume is stored once in a file, with
the first record that shows it: data sets ask many questions about one.
"""

import collections
import contextlib
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from data_pipelines.integrity import IntegrityIndex, short
from data_pipelines.near import WIDTH, fingerprint
from data_pipelines.record import SPLITS, Record, check_record
from data_pipelines.shard_format import Held, encode

FACTS, NEAR = "facts.json", "near.npy"
_ID = 1024  # characters of a rejected input's id that are kept
TALLIES = ("licenses", "label_kinds", "languages", "modalities")


class PartError(ValueError):
    """A part that cannot be written; one line naming its folder. `reason` is the line without the folder."""

    def __init__(self, folder: Path, error: BaseException) -> None:
        text = str(error).strip() or type(error).__name__
        self.reason = f"cannot write: {text.splitlines()[0][:200]}"
        super().__init__(f"{folder}: {self.reason}")


@dataclasses.dataclass(frozen=True)
class Rejected:
    """An input that gave no record: `id` must not name a patient, `reason` is a fixed phrase for counting."""

    id: str
    reason: str


def tallies_of(record: Record) -> dict[str, list[str]]:
    """What a record adds to each of TALLIES."""
    modalities = sorted({media.modality for media in record.media})
    return dict(zip(TALLIES, ([record.license], [record.label_kind], [record.language], modalities), strict=True))


class PartWriter:
    """Writes one part into a new folder; `bytes` are those of its largest split so far.

    near: also fingerprint the pixels of every image, for near-duplicates.
    """

    def __init__(self, folder: Path, *, near: bool = False) -> None:
        folder.mkdir(parents=True)
        self.folder, self.near, self.bytes = folder, near, 0
        self._writers: dict[str, Any] = {}
        self._index = IntegrityIndex()
        self._held: dict[str, dict[bytes, Held]] = {}  # by split and digest, where the frames of a medium are
        self._fingerprints: dict[int, np.ndarray] = {}  # by digest
        self._records: dict[str, collections.Counter[str]] = {split: collections.Counter() for split in SPLITS}
        self._bytes: dict[str, int] = dict.fromkeys(SPLITS, 0)
        self._tallies: dict[str, collections.Counter[str]] = {key: collections.Counter() for key in TALLIES}
        self._synthetic = 0
        self._quarantined: list[dict[str, str]] = []

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            with contextlib.suppress(OSError, RuntimeError):  # what could not be written is of no use
                self.abandon()

    def write(self, item: Record | Rejected) -> None:
        """Raises RecordError for a record that is not well formed, PartError where it cannot be written."""
        if isinstance(item, Rejected):
            self._quarantined.append({"id": item.id[:_ID], "reason": item.reason})
            return
        check_record(item)
        digests = self._index.add(item)
        held = self._held.setdefault(item.split, {})
        data = encode(item, {i: held[digest] for i, digest in enumerate(digests) if digest in held})
        position = sum(self._records[item.split].values())
        for i, digest in enumerate(digests):
            held.setdefault(digest, (position, i))
        try:
            self._writer(item.split).write(data)
        except (OSError, RuntimeError) as error:  # a full disk is a RuntimeError of the ArrayRecord writer
            raise PartError(self.folder, error) from error
        self._bytes[item.split] += len(data)
        self.bytes = max(self._bytes.values())
        if self.near:
            for media, digest in zip(item.media, digests, strict=True):
                if short(digest) not in self._fingerprints:
                    self._fingerprints[short(digest)] = fingerprint(media)
        self._records[item.split][item.task] += 1
        self._synthetic += item.synthetic
        for key, values in tallies_of(item).items():
            self._tallies[key].update(values)

    def _writer(self, split: str) -> Any:
        if split not in self._writers:
            from array_record.python.array_record_module import ArrayRecordWriter

            # Frames are already compressed, so zstd buys nothing over them but time.
            self._writers[split] = ArrayRecordWriter(str(shard_path(self.folder, split)), "group_size:1,zstd:1")
        return self._writers[split]

    def close(self) -> None:
        """Raises PartError where the last bytes cannot be written."""
        facts = {
            "records": self._records,
            "bytes": self._bytes,
            "tallies": self._tallies,
            "synthetic": self._synthetic,
            "quarantined": self._quarantined,
        }
        try:
            self.abandon()
            arrays = {name: np.asarray(values) for name, values in self._index.columns().items()}
            if self.near:
                arrays["near"] = np.array(list(self._fingerprints), np.uint64)
                prints = np.array(list(self._fingerprints.values()), np.uint8).reshape(-1, WIDTH)
                np.save(self.folder / NEAR, prints, allow_pickle=False)
            np.savez(self.folder / "facts.npz", allow_pickle=False, **arrays)
            (self.folder / FACTS).write_text(json.dumps(facts, ensure_ascii=False))
        except (OSError, RuntimeError) as error:
            raise PartError(self.folder, error) from error

    def abandon(self) -> None:
        """Closes the files without making the part whole."""
        writers, self._writers = self._writers, {}
        for writer in writers.values():
            writer.close()


def write_part(folder: Path, items: Iterable[Record | Rejected], *, near: bool = False) -> None:
    with PartWriter(folder, near=near) as part:
        for item in items:
            part.write(item)


def shard_path(folder: Path, split: str) -> Path:
    return folder / f"{split}.array_record"
