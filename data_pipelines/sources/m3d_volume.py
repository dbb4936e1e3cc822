"""Volumes of M3D-Cap, which M3D-VQA asks about too: as the authors prepare them, or the folders of slices they publish.

| file                                              | shown                                                         |
| {ct_case,ct_quizze}/{case}/{name}.npy             | (1, 32, 256, 256) from 0 to 1, as it is                       |
| {ct_case,ct_quizze}/{case}/{name}/{0,1,..}.jpeg   | slices in order of their numbers, foreground, 256 x 256 x 32  |

Lists call a volume by the first; where there is only the second, it is found by its name in ASCII (plain_name). A
folder may hold an image of another size (an overview): the most frequent size is the volume's, as the authors have it.
Known and left as it is: in some folders of sagittal slices the odd and the even ones are not in one order. Nothing in
the files says which folders, so such a volume is shown in the order of its numbers, which is what the authors do.
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
from data_pipelines.sources.layout import LayoutError, refuse_packed
from data_pipelines.sources.source_files import folders, inside

PARTS = ("ct_case", "ct_quizze")
ROOTS = ("", "M3D_Cap_npy", "M3D_Cap")
ASCII = {  # what Unidecode makes of letters and signs that no decomposition makes ASCII
    "ß": "ss", "ẞ": "Ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L",
    "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ħ": "h", "Ħ": "H", "ŧ": "t", "Ŧ": "T", "ı": "i",
    "\u00a0": " ", "\u00b0": "deg", "\u00b1": "+-", "\u00b5": "u", "\u00b7": "*", "\u00d7": "x", "\u2010": "-",
    "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "--", "\u2018": "'", "\u2019": "'", "\u201c": '"',
    "\u201d": '"', "\u2026": "...",
}  # fmt: skip
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


def find_cases(source: Path) -> Path:
    """Of `source` and the folders in it the one that holds cases; `source` where none does. Raises LayoutError where
    several do."""
    where = [
        folder for folder in folders(source) if any((folder / root / part).is_dir() for root in ROOTS for part in PARTS)
    ]
    if len(where) > 1 and where[0] != source:
        raise LayoutError(f"{source}: cases are in {where[0].name} and in {where[1].name}: put them into one folder")
    return where[0] if where else source


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
            found = [path for path in sorted(case.iterdir()) if is_volume(path) and plain_name(stem(path)) == name]
            if found:
                note(found[0])
                return found[0]
    raise MediaError("image file is missing")


def plain_name(name: str) -> str:
    """In ASCII, as the authors' preparation names its files (by Unidecode): without accents, and by the table ASCII."""
    bare = (c for c in unicodedata.normalize("NFD", name) if unicodedata.category(c) != "Mn")
    return "".join(ASCII.get(c, c) for c in bare)


def is_volume(path: Path) -> bool:
    """Whether an entry of a case's folder is one, not its text."""
    return path.is_dir() or path.suffix == ".npy"


def stem(path: Path) -> str:
    """A volume's own name, whichever form it has."""
    return path.name.removesuffix(".npy")


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
