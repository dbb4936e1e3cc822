"""`umit prepare phantom`: procedural patients, any number of them, as Record shards. No such patient exists.

Each patient is drawn, imaged, written as DICOM and NIfTI into a work folder, read back with the readers of real data,
and asked a few questions of every task (see phantom_menu). What patient i is depends on the seed and i alone, and so
does its split: the first n patients of a larger set are the set of n.
"""

import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from data_pipelines.record import LANGUAGES, Record
from data_pipelines.shards import ShardWriter
from data_pipelines.sources.derive import generator, record_of
from data_pipelines.sources.phantom_menu import serve
from data_pipelines.sources.phantom_study import examine, split_of, study_of

_WINDOW = 64  # patients in flight: the bound on memory when shards are written slower than patients are made


class PhantomError(ValueError):
    """An option that makes no sense; the message names it."""


class Options(NamedTuple):
    """What the records of one patient depend on, besides its index."""

    seed: int
    work: Path
    test_fraction: float
    validation_fraction: float
    ct_format: str
    wording_count: int | None
    shuffle_options: bool
    keep_raw: bool


def prepare(
    source: Path | None,
    out: Path,
    *,
    patients: int,
    seed: int = 0,
    workers: int = 1,
    test_fraction: float = 0.15,
    validation_fraction: float = 0.05,
    ct_format: str = "alternate",
    wording_count: int | None = 2,
    shuffle_options: bool = False,
    keep_raw: Path | None = None,
) -> dict[str, Any]:
    """Writes the shards of `patients` patients to `out` and returns the manifest.

    source: not used, there is none. workers: processes. ct_format: "dicom", "nifti" or "alternate". wording_count:
    wordings of each question in use (None: all). keep_raw: folder in which the DICOM and NIfTI files stay.
    """
    if patients < 1:
        raise PhantomError(f"patients: expected at least 1, found {patients}")
    if min(test_fraction, validation_fraction) < 0 or test_fraction + validation_fraction >= 1:
        raise PhantomError(
            f"test_fraction and validation_fraction: expected shares that leave some for training, "
            f"found {test_fraction} and {validation_fraction}"
        )
    if ct_format not in ("dicom", "nifti", "alternate"):
        raise PhantomError(f"ct_format: expected dicom | nifti | alternate, found {ct_format!r}")
    work = Path(keep_raw) if keep_raw else Path(tempfile.mkdtemp(prefix="phantom-"))
    options = Options(
        seed, work, test_fraction, validation_fraction, ct_format, wording_count, shuffle_options, keep_raw is not None
    )
    try:
        with ShardWriter(out, "phantom") as writer:
            made = _all_records(options, patients, workers)
            for records in tqdm(made, total=patients, desc="phantom", unit="patient", disable=None):
                for record in records:
                    writer.add(record)
            return writer.close()
    finally:
        if keep_raw is None:
            shutil.rmtree(work, ignore_errors=True)


def patient_records(options: Options, index: int) -> list[Record]:
    """Records of one patient; a function of the options and the index."""
    folder = options.work / f"{index:07d}"
    examination = examine(options.seed, index, folder, options.ct_format)
    study = study_of(examination, split_of(index, options.test_fraction, options.validation_fraction))
    rng = generator(options.seed, "phantom questions", str(index))
    records = []
    for ask, number in serve(rng, study):
        for language in LANGUAGES if ask.task == "report" else (LANGUAGES[(index + number) % 2],):
            record = record_of(
                rng,
                study,
                ask,
                language,
                wording_count=options.wording_count,
                shuffle_options=options.shuffle_options,
            )
            records.append(record)
    if not options.keep_raw:
        shutil.rmtree(folder)
    return records


def _all_records(options: Options, patients: int, workers: int) -> Iterator[list[Record]]:
    if workers <= 1:
        for index in range(patients):
            yield patient_records(options, index)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for start in range(0, patients, _WINDOW):
            jobs = [(options, index) for index in range(start, min(start + _WINDOW, patients))]
            yield from pool.starmap(patient_records, jobs, chunksize=4)
