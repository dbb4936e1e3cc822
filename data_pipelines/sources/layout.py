"""What converters of published data sets share: the error of a layout that is not the documented one, and its words."""

from collections.abc import Sequence


class LayoutError(ValueError):
    """A source that is not laid out as documented; one line naming the file or flag, what was expected and found."""


def one_of(flag: str, value: str, allowed: Sequence[str]) -> str:
    """The value, or LayoutError naming the flag."""
    if value not in allowed:
        raise LayoutError(f"--{flag}: expected one of {', '.join(allowed)}, found {value!r}")
    return value
