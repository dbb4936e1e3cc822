"""Images that a data set's texts name without saying where they are: found by file name alone.

| given                                | searched                                                       |
| a folder                             | all of its files, in nested folders too, and all of its .zip   |
| a .zip archive                       | its members                                                    |

So the images of several downloads can lie side by side, unpacked or not. A name that stands for two images that differ
is refused. The index takes sixteen bytes a file and is made once a process.
"""

import functools
import hashlib
import os
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_pipelines.inputs import note
from data_pipelines.media import MediaError
from data_pipelines.media.picture import picture
from data_pipelines.record import Media
from data_pipelines.sources.source_files import stamp
from data_pipelines.sources.zip_files import SEVERAL, ZipFiles, name_key


class ImageFiles:
    """digest: changes when a file comes or goes, or an archive changes. Raises LayoutError for a damaged archive."""

    def __init__(self, root: Path) -> None:
        keys, numbers, archives = array("Q"), array("Q"), []
        self._folders: list[str] = []
        for folder, names in _walk(root) if root.is_dir() else ():
            for name in names:
                if name.lower().endswith(".zip"):
                    archives.append(Path(folder, name))
                else:
                    keys.append(name_key(os.fsencode(name)))
                    numbers.append(len(self._folders))
            self._folders.append(os.path.relpath(folder, root))
        self._root = root
        self._zips = [ZipFiles(path) for path in (archives if root.is_dir() else [root])]
        order = np.argsort(np.asarray(keys), kind="stable")
        self._keys, self._numbers = np.asarray(keys)[order], np.asarray(numbers)[order]
        text = repr((self._folders, stamp(*(one.path for one in self._zips)))).encode(errors="surrogateescape")
        self.digest = hashlib.sha256(self._keys.tobytes() + self._numbers.tobytes() + text).hexdigest()

    def read(self, name: str) -> Media:
        """The image of that name; folders in it do not count. Raises MediaError."""
        bare = Path(name).name
        paths = [Path(self._root, folder, bare) for folder in self._holders(bare)]
        zips = [one for one in self._zips if bare in one]
        if not paths and not zips:
            raise MediaError("image file is missing")
        found = [one.read(bare) for one in zips]
        for path in paths:
            note(path)
            try:
                found.append(path.read_bytes())
            except OSError as error:
                raise MediaError(error.strerror or "image file cannot be read") from None
        if any(data != found[0] for data in found):
            raise MediaError(SEVERAL)
        return _picture(found[0])

    def _holders(self, name: str) -> list[str]:
        """The folders that hold a file of that name."""
        key = np.uint64(name_key(name.encode()))
        numbers = self._numbers[np.searchsorted(self._keys, key) : np.searchsorted(self._keys, key, "right")]
        return [self._folders[number] for number in numbers]


@functools.lru_cache(maxsize=1)
def image_files(root: Path, digest: str) -> ImageFiles:
    """Kept for the next call. digest: of the index that the run began with."""
    del digest  # files that have changed since are looked for again
    return ImageFiles(root)


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """(folder, names of its files) of every folder, in a fixed order, less hidden ones; a folder that a link leads
    to is one, once."""
    seen: set[tuple[int, int]] = set()
    for folder, below, names in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below.sort()
        yield folder, sorted(name for name in names if not name.startswith("."))


@functools.lru_cache(maxsize=8)
def _picture(data: bytes) -> Media:
    return picture(data, "OT")
