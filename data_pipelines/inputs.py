"""Which files of the source a chunk was made from, so that a run that goes on converts those again that have changed.

What reads a file for one record says so with `note`; the chunk keeps name, size and time of change beside its part. A
file that was missing is kept too: it may be there by now. Files that all records come from (tables, archives) are among
a converter's options instead, see source_files.stamp.
"""

import contextlib
import contextvars
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

INPUTS = "inputs.json"  # in the folder of a part

Stamp = list[int] | None  # size and time of change, None for what is no file

_noted: contextvars.ContextVar[dict[str, Stamp] | None] = contextvars.ContextVar("noted", default=None)


def note(path: Path) -> bool:
    """Notes a file, or every file below a folder; returns whether it is a file."""
    noted, name = _noted.get(), os.path.abspath(path)
    stamp = _stamp(name)
    if noted is not None:
        noted[name] = stamp
        if stamp is None and os.path.isdir(name):
            files = (os.path.join(folder, file) for folder, _, names in os.walk(name) for file in names)
            noted.update({file: _stamp(file) for file in files})
    return stamp is not None


@contextlib.contextmanager
def noting() -> Iterator[dict[str, Stamp]]:
    """The files noted meanwhile, by name."""
    noted: dict[str, Stamp] = {}
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def save(folder: Path, noted: dict[str, Stamp]) -> None:
    (folder / INPUTS).write_text(json.dumps(noted))


def changed(folder: Path) -> bool:
    """Whether a file is not what it was when the part in this folder was written."""
    noted = json.loads((folder / INPUTS).read_text())
    return any(_stamp(name) != stamp for name, stamp in noted.items())


def _stamp(name: str) -> Stamp:
    try:
        status = os.stat(name)
    except (OSError, ValueError):  # not there, or no name that a file could have
        return None
    return [status.st_size, status.st_mtime_ns] if stat.S_ISREG(status.st_mode) else None
