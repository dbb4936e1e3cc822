"""Directories, or files of one, that are whole or not there: written aside under another name, renamed last.

The writer holds a lock on its folder, so that what a killed process left behind (kill -9, power) is told from what
another process is writing right now, and is removed by the next command with the same target. SIGTERM ends the work
like ctrl-C does, with everything cleaned up.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

_MAY_STAY = "summary.json"  # an older command's; anything else in the target is somebody's work


class Terminated(KeyboardInterrupt):
    """SIGTERM."""


@contextlib.contextmanager
def whole_directory(target: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `target` when the block ends and vanishes if it raises.

    Raises FileExistsError where target holds anything already.
    """
    target = Path(os.path.abspath(target))
    check_free(target)
    with _aside(target) as aside:
        yield aside
        aside.chmod(0o755)
        if target.exists():
            (target / _MAY_STAY).unlink(missing_ok=True)
        os.rename(aside, target)  # onto an empty directory at most


@contextlib.contextmanager
def whole_files(target: Path, names: Collection[str]) -> Iterator[Path]:
    """A folder to write files of these names into, which take their places in `target` together when the block ends;
    one that was not written is not in `target` either. Where the block raises, `target` is as it was before."""
    target = Path(os.path.abspath(target))
    made = not target.exists()
    try:
        with _aside(target / "files") as aside:
            yield aside
            for name in names:
                if (target / name).is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target / name))
            for name in names:
                if (aside / name).exists():
                    os.replace(aside / name, target / name)
                else:
                    (target / name).unlink(missing_ok=True)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            error.filename = str(target)  # a write does not say where
        if made:
            with contextlib.suppress(OSError):  # something else is in it by now
                target.rmdir()
        raise


@contextlib.contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A folder beside the target, gone when the block ends, if it was not renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=_prefix(target)))
    lock = os.open(aside, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _terminable():
            yield aside
    except OSError as error:  # names what the user knows
        here, there = str(aside), str(target)
        error.args = tuple(arg.replace(here, there) if isinstance(arg, str) else arg for arg in error.args)
        if isinstance(error.filename, str):
            error.filename = error.filename.replace(here, there)
        raise
    finally:
        os.close(lock)
        shutil.rmtree(aside, ignore_errors=True)


def check_free(target: Path) -> None:
    """Raises FileExistsError unless target is absent or an empty directory (but for summary.json)."""
    if target.exists() and (not target.is_dir() or any(p.name != _MAY_STAY for p in target.iterdir())):
        raise FileExistsError(f"{target} exists and is not empty")


def _prefix(target: Path) -> str:
    return f".{target.name}.aside."


def _remove_abandoned(target: Path) -> None:
    for left in [path for path in target.parent.iterdir() if path.name.startswith(_prefix(target))]:
        with contextlib.suppress(OSError):
            lock = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises Terminated here; only the main thread may listen to signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
