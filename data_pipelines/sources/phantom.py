"""`umit prepare phantom`: procedural patients, any number of them, as Record shards. No such patient exists.

Each patient is drawn, imaged, written as DICOM and NIfTI into a work folder, read back with the readers of real data,
and asked a few questions of every task (see phantom_menu). What patient i is depends on the seed and i alone, and so
does its split: the first n patients of a larger set are the set of n.
"""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.publish import STRICT, Rules
from data_pipelines.record import LANGUAGES, Record
from data_pipelines.seeded import generator
from data_pipelines.sources.derive import record_of
from data_pipelines.sources.phantom_menu import serve
from data_pipelines.sources.phantom_study import examine, split_of, study_of

OPTIONS = ("patients", "seed", "test_fraction", "validation_fraction", "ct_format", "wording_count", "shuffle_options")


class PhantomError(ValueError):
    """An option that makes no sense; the message names it."""


@dataclasses.dataclass(frozen=True)
class Phantom:
    """The converter: unit i is patient i. ct_format: "dicom", "nifti" or "alternate". wording_count: wordings of each
    question in use (None: all). keep_raw: folder in which the DICOM and NIfTI files stay."""

    patients: int
    seed: int = 0
    test_fraction: float = 0.15
    validation_fraction: float = 0.05
    ct_format: str = "alternate"
    wording_count: int | None = 2
    shuffle_options: bool = False
    keep_raw: Path | None = None
    name: str = "phantom"
    rules: Rules = STRICT
    near: bool = False  # patients of one anatomy look alike by construction

    def __post_init__(self) -> None:
        if self.patients < 1:
            raise PhantomError(f"patients: expected at least 1, found {self.patients}")
        held_out = self.test_fraction, self.validation_fraction
        if min(held_out) < 0 or sum(held_out) >= 1:
            raise PhantomError(
                f"test_fraction and validation_fraction: expected shares that leave some for training, "
                f"found {self.test_fraction} and {self.validation_fraction}"
            )
        if self.ct_format not in ("dicom", "nifti", "alternate"):
            raise PhantomError(f"ct_format: expected dicom | nifti | alternate, found {self.ct_format!r}")

    @property
    def options(self) -> Mapping[str, Any]:
        options = {key: getattr(self, key) for key in OPTIONS}
        return {**options, "keep_raw": str(self.keep_raw) if self.keep_raw else None}

    def units(self) -> range:
        return range(self.patients)

    def records(self, unit: int) -> Iterator[Record]:
        """Records of one patient; a function of the options and the index."""
        if self.keep_raw is not None:
            yield from self._records(unit, self.keep_raw / f"{unit:07d}")
            return
        with tempfile.TemporaryDirectory(prefix="phantom-") as folder:
            yield from self._records(unit, Path(folder) / "raw")

    def _records(self, index: int, folder: Path) -> Iterator[Record]:
        examination = examine(self.seed, index, folder, self.ct_format)
        study = study_of(examination, split_of(index, self.test_fraction, self.validation_fraction))
        rng = generator(self.seed, "phantom questions", str(index))
        for ask, number in serve(rng, study):
            for language in LANGUAGES if ask.task == "report" else (LANGUAGES[(index + number) % 2],):
                yield record_of(
                    rng,
                    study,
                    ask,
                    language,
                    wording_count=self.wording_count,
                    shuffle_options=self.shuffle_options,
                )


def converter(**options: Any) -> Phantom:
    return Phantom(**options)
