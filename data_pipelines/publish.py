"""Parts -> one published shard set: checks what holds only for the whole, names the shards and writes the manifest.

A set is assembled aside and renamed when it is whole: a directory with a manifest is complete.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.integrity import IntegrityIndex
from data_pipelines.near import Fingerprints, near_partners
from data_pipelines.parts import FACTS, NEAR, TALLIES, PartWriter, Rejected, shard_path
from data_pipelines.prompts import templates_version
from data_pipelines.record import SPLITS
from data_pipelines.shard_format import decode, features, load_tfds

SCHEMA = 2
MANIFEST = "manifest.json"


class ShardError(ValueError):
    """A shard set that cannot be written or read; one line naming the directory or file."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """What makes a set unfit, and what is done about it.

    leaks: "error" refuses a set in which a patient or an image is in two splits, "report" lists them in the manifest,
    for published data sets that are so. duplicates: "report", or "drop": a repeated question about the same image, and
    from train (then validation) every record whose image is, or nearly is, one of a later split. expected: published
    numbers of records by "split/task", "all/task" where the split is ours; the manifest lists each that differs, or
    differs by more than the share `within`, where only an approximate number was published.
    """

    leaks: str = "error"
    duplicates: str = "report"
    expected: Mapping[str, int] = dataclasses.field(default_factory=dict)
    within: float = 0.0

    def __post_init__(self) -> None:
        for field, allowed in (("leaks", ("error", "report")), ("duplicates", ("report", "drop"))):
            if getattr(self, field) not in allowed:
                raise ShardError(f"{field}: expected {' | '.join(allowed)}, found {getattr(self, field)!r}")


STRICT = Rules()


def check_target_directory(out: Path) -> None:
    """Raises ShardError where `out` holds something that is no shard set."""
    if out.exists() and not (out / MANIFEST).exists() and any(p.name != "summary.json" for p in out.iterdir()):
        raise ShardError(f"{out}: exists, is not empty and holds no {MANIFEST}; not overwritten")


def publish(parts: Sequence[Path], out: Path, name: str, rules: Rules, seed: int | None = None) -> dict[str, Any]:
    """Makes the parts, in this order, the shard set `out` and returns its manifest; the parts stay as they are. seed:
    of the splits and wordings, stated in the manifest.

    Raises ShardError for a set without records, with a repeated id, or with leaks that `rules` does not allow.
    """
    try:
        found = _Set(parts, out)
        if rules.duplicates == "drop":
            found = found.without_duplicates()
        manifest = {**found.manifest(name, rules), "seed": seed}
        aside = out.with_name(out.name + ".set")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        manifest["shards"] = found.name_shards(aside, name)
        (aside / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")
        _replace(out, aside)
    except (OSError, RuntimeError) as error:  # a full disk is a RuntimeError of the ArrayRecord writer
        raise ShardError(f"{out}: cannot write: {first_line(error)}") from error
    return manifest


def _replace(out: Path, aside: Path) -> None:
    if out.exists():
        old = out.with_name(out.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
        aside.rename(out)
        shutil.rmtree(old)
    else:
        aside.rename(out)


class _Set:
    """All parts of a set: their facts added up, and their records by number in order of writing."""

    def __init__(self, parts: Sequence[Path], out: Path) -> None:
        self.parts, self.out = list(parts), out
        self.facts = [json.loads((part / FACTS).read_text()) for part in parts]
        self.index = IntegrityIndex()
        near: list[np.ndarray] = []  # the images that are fingerprinted
        for part in parts:
            with np.load(part / "facts.npz") as arrays:
                self.index.extend({name: arrays[name] for name in arrays.files if name != "near"})
                near += [arrays["near"]] if "near" in arrays.files else []
        self.splits = np.asarray(self.index.splits)
        self.near = len(near) == len(parts)
        self.prints = np.unique(np.concatenate([np.empty(0, np.uint64), *near]), return_index=True)
        lengths = [sum(sum(tasks.values()) for tasks in facts["records"].values()) for facts in self.facts]
        self.starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def record(self, number: int) -> Any:
        part = int(np.searchsorted(self.starts, number, "right")) - 1
        split = SPLITS[self.splits[number]]
        position = int((self.splits[self.starts[part] : number] == self.splits[number]).sum())
        path = shard_path(self.parts[part], split)
        return decode(read_raw(path, [position])[0], lambda at: read_raw(path, [at])[0])

    def ids(self, numbers: Mapping[str, int]) -> dict[str, str]:
        return {split: self.record(number).id for split, number in numbers.items()}

    def near_leaks(self) -> Iterator[tuple[int, dict[str, int]]]:
        """(image of an earlier split, {split: the first record that shows it or the image near it}) of each that is
        near another one of a later split; an image is told by its digest."""
        if not self.near:
            return
        prints = Fingerprints([part / NEAR for part in self.parts])
        owner, digests = np.asarray(self.index.media_record), np.asarray(self.index.media)
        side = self.splits[owner]
        shown = [np.unique(digests[side == s], return_index=True) for s in range(len(SPLITS))]
        images = [found for found, _ in shown]
        firsts = [owner[side == s][index] for s, (_, index) in enumerate(shown)]  # the first record of each
        known, numbers = self.prints
        for a, b in itertools.combinations(range(len(SPLITS)), 2):
            alone = ~np.isin(images[a], images[b])  # the others are there byte by byte
            alone = np.flatnonzero(alone)[np.argsort(firsts[a][alone])]
            first, second = (numbers[np.searchsorted(known, x)] for x in (images[a][alone], images[b]))
            partner = near_partners(prints, first, second)
            for image, other in zip(alone[partner >= 0], partner[partner >= 0], strict=True):
                yield int(images[a][image]), {SPLITS[a]: int(firsts[a][image]), SPLITS[b]: int(firsts[b][other])}

    def without_duplicates(self) -> "_Set":
        """The set without repeated questions and without what a later split shows; what went is listed as rejected."""
        why = {later: "duplicate of another record" for later, _ in self.index.duplicates()}
        for kind, group in self.index.groups_across_splits():
            last = max(self.splits[group]) if kind == "media" else 0
            for number in group[self.splits[group] < last].tolist():
                why.setdefault(number, "image is in a later split")
        near = {(digest, min(map(SPLITS.index, pair))) for digest, pair in self.near_leaks()}
        for digest, number in zip(self.index.media, self.index.media_record, strict=True) if near else ():
            if (digest, self.splits[number]) in near:
                why.setdefault(number, "image is nearly one of a later split")
        if not why:
            return self
        parts = []
        for i, part in enumerate(self.parts):
            numbers = range(int(self.starts[i]), int(self.starts[i + 1]))
            if not any(number in why for number in numbers):
                parts.append(part)
                continue
            kept = part.with_name(part.name + ".kept")
            shutil.rmtree(kept, ignore_errors=True)
            with PartWriter(kept, near=self.near) as writer:
                for row in self.facts[i]["quarantined"]:
                    writer.write(Rejected(**row))
                for number in numbers:
                    record = self.record(number)
                    writer.write(Rejected(record.id, why[number]) if number in why else record)
            parts.append(kept)
        return _Set(parts, self.out)

    def manifest(self, name: str, rules: Rules) -> dict[str, Any]:
        quarantined = [row for facts in self.facts for row in facts["quarantined"]]
        reasons = collections.Counter(row["reason"] for row in quarantined)
        if not len(self.splits):
            why = ", ".join(f"{reason} ({n})" for reason, n in reasons.most_common()) or "no input at all"
            raise ShardError(f"{self.out}: no usable record; quarantined {len(quarantined)}: {why}")
        for number, earlier in self.index.repeated_ids():
            id = self.record(number).id
            raise ShardError(f"{self.out}: record id {id!r} is used twice (records {earlier} and {number})")
        leaks = [{"kind": kind, "records": self.ids(numbers)} for kind, numbers in self.index.first_of_leaks()]
        if leaks and rules.leaks == "error":
            first = ", ".join(f"{split} {id}" for split, id in leaks[0]["records"].items())
            raise ShardError(
                f"{self.out}: {len(leaks)} leaks between splits, the first: same {leaks[0]['kind']} in {first}"
            )
        records = {split: _sum(facts["records"][split] for facts in self.facts) for split in SPLITS}
        counts = {f"{split}/{task}": n for split, tasks in records.items() for task, n in tasks.items()}
        every = _sum(records.values())
        counts |= {f"all/{task}": n for task, n in every.items()}
        synthetic = sum(facts["synthetic"] for facts in self.facts)
        return {
            "schema": SCHEMA,
            "name": name,
            "templates_version": templates_version(),
            "synthetic": synthetic == len(self.splits),
            "synthetic_records": synthetic,
            "records": {split: tasks for split, tasks in records.items() if tasks},
            "quarantined": quarantined,
            "quarantined_reasons": dict(reasons.most_common()),
            "duplicates": [{"id": self.record(a).id, "same_as": self.record(b).id} for a, b in self.index.duplicates()],
            "leaks": leaks,
            "near_duplicates": [self.ids(pair) for _, pair in self.near_leaks()] if self.near else None,
            "patients_split_by_region": self.index.patients_by_region(),
            "unexpected_counts": {
                key: {"expected": rules.expected[key], "found": counts.get(key, 0)}
                for key in sorted(rules.expected)
                if abs(counts.get(key, 0) - rules.expected[key]) > rules.within * rules.expected[key]
            },
            **{key: _sum(facts["tallies"][key] for facts in self.facts) for key in TALLIES},
        }

    def name_shards(self, aside: Path, name: str) -> list[dict[str, Any]]:
        """Gives the shards their names in `aside`, writes the tensorflow-datasets files; returns a row per shard."""
        tfds, shards, infos = load_tfds(), [], []
        for split in SPLITS:
            used = [i for i, part in enumerate(self.parts) if shard_path(part, split).exists()]
            lengths = [sum(self.facts[i]["records"][split].values()) for i in used]
            for number, i in enumerate(used):
                path = aside / f"{name}-{split}.array_record-{number:05d}-of-{len(used):05d}"
                _place(shard_path(self.parts[i], split), path)
                row = {"file": path.name, "split": split, "records": lengths[number], "bytes": path.stat().st_size}
                shards.append({**row, "sha256": file_sha256(path)})
            if used:
                size = sum(self.facts[i]["bytes"][split] for i in used)
                infos.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size))
        tfds.folder_dataset.write_metadata(
            data_dir=aside, features=features(), split_infos=infos, version="1.0.0", check_data=False
        )
        return shards


def _place(part: Path, path: Path) -> None:
    """The same file under another name; the part keeps its own, so that an interrupted publication can be repeated."""
    try:
        os.link(part, path)
    except OSError:  # a file system without links
        shutil.copyfile(part, path)


def _sum(counts: Any) -> dict[str, int]:
    total: collections.Counter[str] = collections.Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def read_raw(path: Path, positions: Sequence[int]) -> list[bytes]:
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path))
    try:
        return reader.read(list(positions))
    finally:
        reader.close()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return os.linesep.join(text.splitlines()[:1])[:200]
