"""Finds repeated records and leaks between splits from a few digests a record, whatever the size of the corpus.

Kept per record: 8 bytes each for its id, its patient, its question with its media, and every one of its media; so three
million records cost about 100 MB, and nothing of the pixels stays in memory.

| found     | meaning                                                                                     |
| duplicate | same media bytes and same question as an earlier record of the same split                   |
| leak      | one patient, or the same media bytes, in two splits. A patient whose held-out records say   |
|           | `heldout="region"` is split by region on purpose: counted, and no leak unless pixels repeat |
"""

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from data_pipelines.record import SPLITS, Media, Record

COLUMNS = ("ids", "patients", "questions", "splits", "by_region", "media", "media_record")


def media_sha256(media: Media) -> bytes:
    """Digest of the encoded frames, one after the other: for an image, of its file."""
    sha = hashlib.sha256()
    for frame in media.frames:
        sha.update(frame)
    return sha.digest()


def short(digest: bytes) -> int:
    """The first eight bytes of a medium's digest, by which the index knows it."""
    return int.from_bytes(digest[:8], "little")


def _short(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class IntegrityIndex:
    """Collects digests with `add` and reports at the end; a record is named by its number in order of `add`."""

    def __init__(self) -> None:
        self.ids, self.patients, self.questions = array("Q"), array("Q"), array("Q")
        self.splits, self.by_region = array("B"), array("B")
        self.media, self.media_record = array("Q"), array("Q")

    def add(self, record: Record) -> list[bytes]:
        """Returns the digests of its media."""
        digests = [media_sha256(media) for media in record.media]
        question = "\n".join(turn.text for turn in record.turns if turn.role == "user")
        self.media.extend(map(short, digests))
        self.media_record.extend([len(self.ids)] * len(digests))
        self.ids.append(_short(record.id.encode()))
        self.patients.append(_short(record.patient_id.encode()))
        self.questions.append(_short(b"".join([*digests, question.encode()])))
        self.splits.append(SPLITS.index(record.split))
        self.by_region.append(record.heldout == "region")
        return digests

    def columns(self) -> dict[str, Any]:
        """Everything collected, by name; `extend` takes it back."""
        return {name: getattr(self, name) for name in COLUMNS}

    def extend(self, columns: Mapping[str, np.ndarray]) -> None:
        """Appends what another index collected, its records after these."""
        before = len(self.ids)
        for name in COLUMNS:
            values = columns[name] + before if name == "media_record" else columns[name]
            column = getattr(self, name)
            column.frombytes(np.asarray(values).astype(column.typecode).tobytes())

    def repeated_ids(self) -> list[tuple[int, int]]:
        """(record, earlier record) pairs with the same id."""
        return list(_repeats(np.array(self.ids, np.uint64)))

    def duplicates(self) -> list[tuple[int, int]]:
        """(record, earlier record of the same split) pairs with the same media and question."""
        splits = np.array(self.splits, np.uint64)
        # Mixing the split in keeps pairs across splits out: those are leaks.
        return list(_repeats(np.array(self.questions, np.uint64) ^ (splits * np.uint64(0x9E3779B97F4A7C15))))

    def groups_across_splits(self) -> Iterator[tuple[str, np.ndarray]]:
        """("patient" | "media", numbers of the records that share it), for each that is in two splits."""
        splits, by_region = np.array(self.splits), np.array(self.by_region, bool)
        for group in _groups(np.array(self.patients, np.uint64)):
            if len(set(splits[group])) > 1 and not self._on_purpose(splits, by_region, group):
                yield "patient", group
        owner = np.array(self.media_record, np.int64)
        for positions in _groups(np.array(self.media, np.uint64)):
            group = owner[positions]
            if len(set(splits[group])) > 1:
                yield "media", group

    def first_of_leaks(self) -> Iterator[tuple[str, dict[str, int]]]:
        """(kind, {split: number of its first record}) of each leak."""
        splits = np.array(self.splits)
        for kind, group in self.groups_across_splits():
            first = {SPLITS[splits[number]]: int(number) for number in reversed(group)}
            yield kind, {split: first[split] for split in SPLITS if split in first}

    def patients_by_region(self) -> int:
        """Number of patients in two splits whose held-out records are regions of their images."""
        splits, by_region = np.array(self.splits), np.array(self.by_region, bool)
        groups = _groups(np.array(self.patients, np.uint64))
        return sum(len(set(splits[g])) > 1 and self._on_purpose(splits, by_region, g) for g in groups)

    @staticmethod
    def _on_purpose(splits: np.ndarray, by_region: np.ndarray, group: np.ndarray) -> bool:
        return bool(by_region[group][splits[group] != SPLITS.index("train")].all())


def _groups(digests: np.ndarray) -> Iterator[np.ndarray]:
    """Positions that share a digest, in rising order, for every digest seen at least twice."""
    order = np.argsort(digests, kind="stable")
    edges = np.flatnonzero(np.diff(digests[order])) + 1
    starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(digests)]])
    repeated = np.flatnonzero(ends - starts > 1)
    repeated = repeated[np.argsort(order[starts[repeated]], kind="stable")] if len(repeated) else repeated
    for i in repeated:
        yield order[starts[i] : ends[i]]


def _repeats(digests: np.ndarray) -> Iterator[tuple[int, int]]:
    for group in _groups(digests):
        for later in group[1:]:
            yield int(later), int(group[0])
