"""Lines of JSON that a process leaves as it goes, so that one that was killed goes on where it stopped.

| line       | holds                                                          |
| the first  | {"key"}: what all other lines depend on, as a hash             |
| each other | one entry, an object                                           |

Entries reach the disk before `add` returns. Those under another key are thrown away, and so is a line that a kill cut
short.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

Entry = Mapping[str, Any]


class Journal:
    """entries: those that an earlier process left under the same key. foreign: what a warning calls others."""

    def __init__(self, path: Path, key: str, foreign: str) -> None:
        self._path = path
        self.entries, whole = self._read(key, foreign)
        with open(path, "ab") as file:
            file.truncate(whole)
        if not whole:
            self.add([{"key": key}])

    def _read(self, key: str, foreign: str) -> tuple[list[Entry], int]:
        """(entries, bytes of the file that are good), none where the key is another."""
        data = self._path.read_bytes() if self._path.is_file() else b""
        entries: list[Entry] = []
        whole = 0
        for line in data.splitlines(keepends=True):
            entry = _entry(line)
            if entry is None:
                break
            if whole:
                entries.append(entry)
            elif entry != {"key": key}:
                logger.warning("%s: %s: thrown away", self._path, foreign)
                break
            whole += len(line)
        return entries, whole

    def add(self, entries: Sequence[Entry]) -> None:
        with open(self._path, "ab") as file:
            file.write("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries).encode())
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _entry(line: bytes) -> Entry | None:
    """A whole line's entry."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
