"""The answers of an evaluation that is not finished, so that one that was killed goes on where it stopped.

| line        | holds                                                                            |
| the first   | {"key"}: what the answers depend on (weights, records, settings), as a hash      |
| each other  | {"index", "id", "tokens"}: one answer, in the order in which they were generated |

A batch is written at once and reaches the disk before the next is generated. Answers under another key are thrown away,
and so is a line that a kill cut short. The whole file goes when the predictions have their final name.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class PartialAnswers:
    """known: answers by index, those of an earlier process included. ids: of the records, by index."""

    def __init__(self, path: Path, key: str, ids: Sequence[str]) -> None:
        self._path, self._ids = path, ids
        self.known, whole = self._read(key)
        with open(path, "ab") as file:
            file.truncate(whole)
        if not whole:
            self._append([{"key": key}])

    def _read(self, key: str) -> tuple[dict[int, list[int]], int]:
        """(answers, bytes of the file that are good), none where the file is not of this evaluation."""
        data = self._path.read_bytes() if self._path.is_file() else b""
        known, whole = {}, 0
        for line in data.splitlines(keepends=True):
            entry = _entry(line)
            if entry is None:
                break
            if not whole:
                if entry.get("key") != key:
                    logger.warning("%s: answers of another model or of other records: thrown away", self._path)
                    break
            elif 0 <= entry["index"] < len(self._ids) and self._ids[entry["index"]] == entry["id"]:
                known[entry["index"]] = entry["tokens"]
            whole += len(line)
        return known, whole

    def add(self, answers: Mapping[int, list[int]]) -> None:
        """Keeps the answers of one batch."""
        self.known.update(answers)
        self._append([{"index": i, "id": self._ids[i], "tokens": tokens} for i, tokens in answers.items()])

    def _append(self, entries: Sequence[Mapping[str, Any]]) -> None:
        with open(self._path, "ab") as file:
            file.write("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries).encode())
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _entry(line: bytes) -> dict[str, Any] | None:
    """A whole line's entry."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    shapes = ({"key"}, {"index", "id", "tokens"})
    return entry if isinstance(entry, dict) and set(entry) in shapes else None
