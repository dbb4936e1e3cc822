"""What converters of published data sets share: the error of a layout that is not the documented one, and its words."""

from collections.abc import Sequence
from pathlib import Path

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


class LayoutError(ValueError):
    """A source that is not laid out as documented; one line naming the file or flag, what was expected and found."""


def one_of(flag: str, value: str, allowed: Sequence[str]) -> str:
    """The value, or LayoutError naming the flag."""
    if value not in allowed:
        raise LayoutError(f"--{flag}: expected one of {', '.join(allowed)}, found {value!r}")
    return value


def refuse_packed(*folders: Path, archives: Sequence[str] = ()) -> None:
    """Raises LayoutError where the layout needs one of these folders, none is there, and what would be unpacked is:
    NAME.zip or the like of a folder NAME, or one of `archives`, the names of files that lie beside."""
    if any(folder.is_dir() for folder in folders):
        return
    for folder in folders:
        for name in (*(folder.name + suffix for suffix in _ARCHIVES), *archives):
            if (folder.parent / name).is_file():
                raise LayoutError(f"{folder.parent}: unpack {name} first: there is no folder {folder.name}")
