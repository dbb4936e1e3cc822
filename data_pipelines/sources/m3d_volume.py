"""Volumes of M3D-Cap, which M3D-VQA asks about too: as the authors prepare them, or the folders of slices they publish.

| file                                              | shown                                                         |
| {ct_case,ct_quizze}/{case}/{name}.npy             | (1, 32, 256, 256) from 0 to 1, as it is                       |
| {ct_case,ct_quizze}/{case}/{name}/{0,1,..}.jpeg   | slices in order of their numbers, foreground, 256 x 256 x 32  |

Lists call a volume by the first; where there is only the second, it is found by its name, less accents. A folder may
hold an image of another size (an overview): the most frequent size is the volume's, as in the authors' preparation.
"""

import collections
import functools
import unicodedata
from pathlib import Path, PurePosixPath

import numpy as np

from data_pipelines.inputs import note
from data_pipelines.media import MediaError
from data_pipelines.media.array import read_array
from data_pipelines.media.raster import read_image
from data_pipelines.media.show import LARGEST
from data_pipelines.media.stack import show_stack
from data_pipelines.record import Media
from data_pipelines.sources.layout import refuse_packed
from data_pipelines.sources.source_files import inside

PARTS = ("ct_case", "ct_quizze")
ROOTS = ("", "M3D_Cap_npy", "M3D_Cap")
_SLICES = (".jpeg", ".jpg", ".png")


def tail_of(name: str) -> str:
    """A path of the lists from ct_case or ct_quizze on; whatever stands before is the authors' own disk."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    starts = [i for i, part in enumerate(parts) if part in PARTS]
    return "/".join(parts[starts[-1] :] if starts else parts)


def refuse_packed_volumes(folder: Path) -> None:
    """Raises LayoutError where ct_case or ct_quizze, or a folder of both, is still an archive."""
    for part in PARTS:
        refuse_packed(*(folder / root / part for root in ROOTS))
    if not any((folder / part).is_dir() for part in PARTS):
        refuse_packed(*(folder / root for root in ROOTS[1:]))


def find_volume(folder: Path, tail: str) -> Path:
    """The .npy file, or the folder of slices, of a volume. Raises MediaError."""
    for root in ROOTS:
        try:
            return inside(folder / root, tail)
        except MediaError as error:
            if error.reason != "image file is missing":
                raise
    name = plain_name(PurePosixPath(tail).stem)
    for root in ROOTS:
        case = folder / root / PurePosixPath(tail).parent
        if case.is_dir():
            found = [path for path in sorted(case.iterdir()) if path.is_dir() and plain_name(path.name) == name]
            if found:
                note(found[0])
                return found[0]
    raise MediaError("image file is missing")


def plain_name(name: str) -> str:
    """Without accents, which the prepared files' names lack."""
    return "".join(c for c in unicodedata.normalize("NFD", name) if unicodedata.category(c) != "Mn")


@functools.lru_cache(maxsize=2)
def show_volume(path: Path) -> Media:
    """A volume as it is shown. Raises MediaError."""
    if path.is_dir():
        return show_stack(_slices(path), "CT", size_xyz=LARGEST, foreground=True).media
    array = read_array(path)
    if array.shape != (1, *LARGEST[::-1]):
        raise MediaError("array is not (1, 32, 256, 256)")
    return show_stack(array[0], "CT", size_xyz=LARGEST).media


def _slices(folder: Path) -> np.ndarray:
    files = [path for path in folder.iterdir() if path.suffix.lower() in _SLICES]
    if not files:
        raise MediaError("no slices")
    try:
        files.sort(key=lambda path: int(path.stem))
    except ValueError:
        raise MediaError("name of a slice is not a number") from None
    planes = [read_image(path)[..., 0] for path in files]
    size, count = collections.Counter(plane.shape for plane in planes).most_common(1)[0]
    if 2 * count <= len(planes):
        raise MediaError("slices of many sizes")
    return np.stack([plane for plane in planes if plane.shape == size])
