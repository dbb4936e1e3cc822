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
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from data_pipelines.record import SPLITS, Media, Record


def media_sha256(media: Media) -> bytes:
    """Digest of the encoded frames, one after the other: for an image, of its file."""
    sha = hashlib.sha256()
    for frame in media.frames:
        sha.update(frame)
    return sha.digest()


def _short(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class IntegrityIndex:
    """Collects digests with `add` and reports at the end; a record is named by its number in order of `add`."""

    def __init__(self) -> None:
        self.ids, self.patients, self.questions = array("Q"), array("Q"), array("Q")
        self.splits, self.by_region = array("B"), array("B")
        self.media, self.media_record = array("Q"), array("Q")

    def add(self, record: Record) -> None:
        digests = [media_sha256(media) for media in record.media]
        question = "\n".join(turn.text for turn in record.turns if turn.role == "user")
        self.media.extend(int.from_bytes(digest[:8], "little") for digest in digests)
        self.media_record.extend([len(self.ids)] * len(digests))
        self.ids.append(_short(record.id.encode()))
        self.patients.append(_short(record.patient_id.encode()))
        self.questions.append(_short(b"".join([*digests, question.encode()])))
        self.splits.append(SPLITS.index(record.split))
        self.by_region.append(record.heldout == "region")

    def repeated_ids(self) -> list[tuple[int, int]]:
        """(record, earlier record) pairs with the same id."""
        return list(_repeats(np.array(self.ids, np.uint64)))

    def duplicates(self) -> list[tuple[int, int]]:
        """(record, earlier record of the same split) pairs with the same media and question."""
        splits = np.array(self.splits, np.uint64)
        # Mixing the split in keeps pairs across splits out: those are leaks.
        return list(_repeats(np.array(self.questions, np.uint64) ^ (splits * np.uint64(0x9E3779B97F4A7C15))))

    def leaks(self, record_id: Callable[[int], str]) -> tuple[list[dict[str, Any]], int]:
        """(leaks, number of patients split by region): a leak is {kind, records: {split: id of its first record}}."""
        splits, found, shared = np.array(self.splits), [], 0
        train, by_region = SPLITS.index("train"), np.array(self.by_region, bool)
        for group in _groups(np.array(self.patients, np.uint64)):
            if len(set(splits[group])) < 2:
                continue
            if by_region[group][splits[group] != train].all():
                shared += 1
            else:
                found.append(("patient", group))
        owner = np.array(self.media_record, np.int64)
        for positions in _groups(np.array(self.media, np.uint64)):
            group = owner[positions]
            if len(set(splits[group])) > 1:
                found.append(("media", group))
        leaks = []
        for kind, group in found:
            first = {SPLITS[splits[number]]: int(number) for number in reversed(group)}
            records = {split: record_id(first[split]) for split in SPLITS if split in first}
            leaks.append({"kind": kind, "records": records})
        return leaks, shared


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
