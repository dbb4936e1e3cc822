"""Where files are: a path on this machine, or gs://BUCKET/... through etils.epath and gcsfs.

A local path stays a pathlib.Path; one in a bucket is an epath.Path, which has the same methods as far as they make
sense there. pathlib alone would turn gs://b/x into gs:/b/x without a word.
"""

import importlib.util
import io
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


class PathError(ValueError):
    """A path of a kind that cannot be read or written; the message says why."""


def as_path(path: Any) -> Path:
    """A string or any kind of path as a path that can be opened. Raises PathError for s3:// and other schemes."""
    scheme, found, _ = os.fspath(path).partition("://")
    if not found:
        return Path(path)
    if scheme == "s3":
        raise PathError(f"{path}: Orbax cannot write checkpoints to S3, nor ArrayRecord read it: use gs:// or a mount")
    if scheme != "gs":
        raise PathError(f"{path}: expected a path on this machine or gs://BUCKET/..., found {scheme}://")
    if importlib.util.find_spec("gcsfs") is None:
        raise PathError(f"{path}: gs:// needs gcsfs: pip install 'umit_jax[gcs]'")
    for name in ("gcsfs", "fsspec"):  # they log the traceback of what they also raise, and each cache they open
        logging.getLogger(name).setLevel(logging.CRITICAL)
    from etils import epath

    return epath.Path(path)  # type: ignore[return-value]


def is_remote(path: Any) -> bool:
    return "://" in os.fspath(path)


def size(path: Path) -> int:
    """Bytes of a file."""
    found: Any = path.stat()
    return found.length if is_remote(path) else found.st_size


def write_aside(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """A file that is whole or absent, with several hosts writing the same one at once. In a bucket it always is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_remote(path):
        content = io.BytesIO()
        write(content)
        path.write_bytes(content.getvalue())
        return
    handle, aside = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    with os.fdopen(handle, "wb") as file:
        write(file)
    Path(aside).rename(path)
