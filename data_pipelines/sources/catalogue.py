"""The data sets `umit prepare` knows: catalogue.yaml, read."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import yaml


@dataclasses.dataclass(frozen=True)
class Entry:
    """One data set. flags: those of `umit prepare` it takes; required: those it cannot do without. records: published
    numbers by "split/task", or "all/task"; layouts: the same by layout, for a set that was published with several.
    within: how far off a count may be, as a share, where the published ones are approximate; doubt: what is unsure."""

    what: str
    where: str
    license: str
    tasks: str
    frame: str
    flags: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    records: Mapping[str, int] = dataclasses.field(default_factory=dict)
    layouts: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    within: float = 0.0
    doubt: str = ""

    @property
    def published(self) -> str:
        """The published numbers as one line, "" without any."""
        parts = [f"{layout}: {self._line(counts)}" for layout, counts in self.layouts.items()]
        line = "; ".join(([self._line(self.records)] if self.records else []) + parts)
        return line + (f" ({self.doubt})" if self.doubt else "")

    def _line(self, counts: Mapping[str, int]) -> str:
        about = "about " if self.within else ""
        return ", ".join(f"{key} {about}{n:,}" for key, n in counts.items())


@functools.cache
def catalogue() -> dict[str, Entry]:
    """Every entry by name, in the file's order."""
    table = yaml.safe_load(Path(__file__).with_name("catalogue.yaml").read_text(encoding="utf-8"))
    entries = {}
    for name, values in table.items():
        flags = values.pop("flags")
        names = tuple(flag.rstrip("!") for flag in flags)
        required = tuple(flag.rstrip("!") for flag in flags if flag.endswith("!"))
        entries[name] = Entry(flags=names, required=required, **values)
    return entries
