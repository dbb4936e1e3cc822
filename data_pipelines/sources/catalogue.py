"""The data sets `umit prepare` knows: catalogue.yaml, read."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import yaml

FILE = Path(__file__).with_name("catalogue.yaml")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One data set. flags: those of `umit prepare` it takes; required: those it cannot do without. folder: lines that
    say what --source must hold. subset: what --subset names; subsets: its values with their published numbers, {} where
    they are the names of files or features that only the source tells. records: published numbers by "split/task", or
    "all/task"; layouts: the same by layout, for a set that was published with several. within: how far off a count may
    be, as a share, where the published ones are approximate; doubt: what is unsure."""

    what: str
    where: str
    license: str
    tasks: str
    frame: str
    flags: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    folder: str = ""
    subset: str = ""
    subsets: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    records: Mapping[str, int] = dataclasses.field(default_factory=dict)
    layouts: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    within: float = 0.0
    doubt: str = ""

    @property
    def published(self) -> str:
        """The published numbers as one line, "" without any: of the whole, or else of its layouts or subsets."""
        if self.records:
            parts = [self._line(self.records)]
        else:
            named = {**self.layouts, **self.subsets}
            parts = [f"{name}: {self._line(counts)}" for name, counts in named.items() if counts]
        return "; ".join(parts) + (f" ({self.doubt})" if self.doubt else "")

    def listed(self, name: str) -> str:
        """All of it, as `umit prepare --list` shows it."""
        lines = [f"{name}: {self.what}", f"  from: {self.where}", f"  licence: {self.license}"]
        lines += [f"  tasks: {self.tasks}", f"  coordinates: {self.frame}"]
        lines += [f"  records expected: {self.published}"] if self.published else []
        shown = [f"{flag_name(flag)} (required)" if flag in self.required else flag_name(flag) for flag in self.flags]
        lines.append(f"  flags: {', '.join(shown)}")
        if self.folder:
            lines += ["  --source DIR holds:", *(f"    {line}" for line in self.folder.splitlines())]
        if self.subset:
            lines.append(f"  --subset: {self.subset}" + (":" if self.subsets else ""))
        for value, counts in self.subsets.items():
            lines.append(f"    {value}" + (f": {self._line(counts)}" if counts else ""))
        return "\n".join(lines)

    def _line(self, counts: Mapping[str, int]) -> str:
        about = "about " if self.within else ""
        return ", ".join(f"{key} {about}{n:,}" for key, n in counts.items())


def flag_name(flag: str) -> str:
    return f"--{flag.replace('_', '-')}"


@functools.cache
def catalogue() -> dict[str, Entry]:
    """Every entry by name, in the file's order."""
    return read_catalogue(FILE.read_text(encoding="utf-8"))


def read_catalogue(text: str) -> dict[str, Entry]:
    """The entries of a catalogue's text, by name."""
    entries = {}
    for name, values in yaml.safe_load(text).items():
        flags = values.pop("flags")
        names = tuple(flag.rstrip("!") for flag in flags)
        required = tuple(flag.rstrip("!") for flag in flags if flag.endswith("!"))
        entries[name] = Entry(flags=names, required=required, **values)
    return entries
