"""The data sets `umit prepare` knows: catalogue.yaml, read."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import yaml


@dataclasses.dataclass(frozen=True)
class Entry:
    """One data set. flags: those of `umit prepare` it takes; required: those it cannot do without. records: published
    numbers by "split/task", or "all/task"; layouts: the same by layout, for a set that was published with several."""

    what: str
    where: str
    license: str
    tasks: str
    frame: str
    flags: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    records: Mapping[str, int] = dataclasses.field(default_factory=dict)
    layouts: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)

    @property
    def published(self) -> str:
        """The published numbers as one line, "" without any."""
        parts = [f"{layout}: {_line(counts)}" for layout, counts in self.layouts.items()]
        return "; ".join(([_line(self.records)] if self.records else []) + parts)


def _line(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key} {n:,}" for key, n in counts.items())


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
