"""A converter of numbers, for the tests of preparation: unit i gives records, and now and then a rejected input."""

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from toy_records import image, record

from data_pipelines.parts import Rejected
from data_pipelines.publish import Rules
from data_pipelines.record import SPLITS, Record


@dataclasses.dataclass(frozen=True)
class ToyConverter:
    count: int
    die_at: int | None = None  # the process ends there, as if killed, unless `log` says it did so before
    fail_at: int | None = None  # the unit is an error
    warn_at: int | None = None  # the unit is worth a line of the log
    log: Path | None = None  # a file that notes each unit converted
    same_image: bool = False
    name: str = "toy"
    expected: Mapping[str, int] = dataclasses.field(default_factory=dict)
    near: bool = True

    @property
    def rules(self) -> Rules:
        return Rules(leaks="report", expected=self.expected)

    @property
    def options(self) -> dict[str, int]:
        return {"count": self.count}

    def units(self) -> range:
        return range(self.count)

    def records(self, unit: int) -> Iterator[Record | Rejected]:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{unit}\n")
            if unit == self.die_at and self.log.read_text().split().count(str(unit)) == 1:
                os._exit(9)
        if unit == self.warn_at:
            logging.getLogger("data_pipelines.toy").warning("unit %d is odd", unit)
        if unit == self.fail_at:
            raise ValueError(f"unit {unit} of no use\nand more about it")
        if unit % 7 == 3:
            yield Rejected(f"unit {unit}", "truncated")
            return
        media = (image(seed=0),) if self.same_image else (image(8, 8, unit),)
        yield record(unit, split=SPLITS[unit % 3], media=media)
