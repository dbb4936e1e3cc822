"""Raw files of one data set -> a published shard set: cut into chunks, converted by workers, resumed after a kill.

A Converter says what its units are (files, rows, studies: cheap to list, in a fixed order) and turns one into records.
Units are cut into chunks whose borders depend on their number alone; each chunk becomes one part (parts.py), written
aside and renamed. So the shards are the same whoever converts the chunks and in which order, and a run that was
interrupted finds its finished chunks again, as long as options and code are what they were; a chunk whose files have
changed since is converted again (inputs.py).

The chunks are converted by an Apache Beam pipeline, on this machine's cores or on whatever its flags name (Flink,
Spark, Dataflow, ...; the folder of the shards must then be one that every worker reaches), or one after the other here.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from data_pipelines import inputs
from data_pipelines.parts import FACTS, PartError, Rejected, write_part
from data_pipelines.pipeline import by_beam, run
from data_pipelines.prompts import using_templates
from data_pipelines.publish import Rules, ShardError, check_target_directory, publish
from data_pipelines.record import Record
from data_pipelines.shards import check_name

logger = logging.getLogger(__name__)

CHUNKS = 512  # at most about this many chunks, so as many shards a split
CHUNK_UNITS = 64  # at least this many units a chunk


class Converter(Protocol):
    """One data set's reader. It is pickled to the workers, so it holds paths and options, not open files."""

    @property
    def name(self) -> str:
        """The data set's, as in `umit prepare NAME`."""
        ...

    @property
    def rules(self) -> Rules:
        """What makes the set unfit, and the published counts it is compared with."""
        ...

    @property
    def near(self) -> bool:
        """Whether images that nearly repeat across splits are looked for; costs a decoding of each."""
        ...

    @property
    def options(self) -> Mapping[str, Any]:
        """Everything that changes what comes out, JSON values: another run with these goes on from the same chunks."""
        ...

    def units(self) -> Sequence[Any]:
        """The inputs in a fixed order, small and picklable, the same at every call."""
        ...

    def records(self, unit: Any) -> Iterator[Record | Rejected]:
        """What one unit gives; a function of the unit and the options."""
        ...


def prepare(
    converter: Converter,
    out: Path,
    *,
    duplicates: str = "report",
    templates: Path | None = None,
    pipeline: Sequence[str] = (),
) -> dict[str, Any]:
    """Publishes the shard set under `out` and returns its manifest.

    duplicates: "report" or "drop", see Rules. templates: a file that words the questions instead of ours. pipeline:
    flags of Apache Beam (pipeline.beam_flags), which then does the work (pipeline.by_beam); otherwise it is done
    in this process. Raises ShardError, RecordError, and what the converter raises for input that cannot be used at all;
    finished chunks stay in `out`.partial for the next run, and where there are none, nothing stays.
    """
    rules = dataclasses.replace(converter.rules, duplicates=duplicates)
    check_name(converter.name)
    check_target_directory(out)
    with using_templates(templates):
        return _prepare(converter, out, rules, templates, pipeline)


def _prepare(
    converter: Converter, out: Path, rules: Rules, templates: Path | None, pipeline: Sequence[str]
) -> dict[str, Any]:
    units = converter.units()
    partial = out.with_name(out.name + ".partial")
    chunks = _open_job(converter, units, partial, templates)
    todo = [i for i in range(len(chunks)) if not _is_done(_folder(partial, i))]
    if len(todo) < len(chunks):
        logger.info("%s: going on, %d of %d chunks are there", partial, len(chunks) - len(todo), len(chunks))
    work = functools.partial(_write_chunk, converter, partial, templates)
    jobs = ((i, list(units[chunks[i].start : chunks[i].stop])) for i in todo)
    left = sum(len(chunks[i]) for i in todo)
    with tqdm(total=left, desc=converter.name, unit="unit", disable=None) as bar:

        def tick() -> None:
            done = (len(chunks[i]) for i in todo if (_folder(partial, i) / FACTS).exists())
            bar.update(sum(done) - bar.n)

        try:
            if by_beam(pipeline, len(todo)):
                run(work, jobs, pipeline, partial / "error.txt", tick)
            else:
                for job in jobs:
                    work(job, bar.update)
        except BaseException:
            if not any((_folder(partial, i) / FACTS).exists() for i in range(len(chunks))):
                shutil.rmtree(partial, ignore_errors=True)  # nothing to go on from
            raise
    parts = [_folder(partial, i) for i in range(len(chunks))]
    try:
        manifest = publish(parts, out, converter.name, rules, converter.options.get("seed"))
    except ShardError as error:
        if error.__cause__ is None:  # the records are at fault, not the disk: nothing to go on from
            shutil.rmtree(partial)
        raise
    shutil.rmtree(partial)
    return manifest


def _open_job(converter: Converter, units: Sequence[Any], partial: Path, templates: Path | None) -> list[range]:
    """The chunks, as ranges of units, after clearing away parts that were written for another job."""
    size = max(CHUNK_UNITS, -(-len(units) // CHUNKS))
    digest = hashlib.sha256()
    for unit in units:
        digest.update(f"{unit!r}\n".encode())
    job = {
        "name": converter.name,
        "options": dict(converter.options),
        "units": len(units),
        "units_sha256": digest.hexdigest(),
        "chunk": size,
        "near": converter.near,
        "templates": None if templates is None else hashlib.sha256(templates.read_bytes()).hexdigest(),
        "code": _code_digest(),
    }
    text = json.dumps(job, sort_keys=True)
    file = partial / "job.json"
    if not file.exists() or file.read_text() != text:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        file.write_text(text)
    return [range(start, min(start + size, len(units))) for start in range(0, len(units), size)]


@functools.cache
def _code_digest() -> str:
    """Digest of this package's files: parts written by another version are not mixed with this one's."""
    root, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".py", ".yaml", ".json")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _is_done(folder: Path) -> bool:
    """Whether the chunk's part is there and its input is what it was; otherwise the part is cleared away."""
    if not (folder / FACTS).exists():
        return False
    if inputs.changed(folder):  # its name may be a patient's, so it is not told
        logger.warning("%s: made from a file that has changed since: converted again", folder)
        shutil.rmtree(folder)
    return folder.exists()


def _folder(partial: Path, chunk: int) -> Path:
    return partial / f"{chunk:05d}"


def _write_chunk(
    converter: Converter, partial: Path, templates: Path | None, job: tuple[int, Sequence[Any]], done: Any = None
) -> int:
    """Converts one chunk and puts its part in place; returns its number. Safe to run twice at once."""
    chunk, units = job
    aside, folder = partial / f".{chunk:05d}.{uuid.uuid4().hex}", _folder(partial, chunk)
    try:
        with using_templates(templates), inputs.noting() as noted:
            write_part(aside, _items(converter, units, done), near=converter.near)
        inputs.save(aside, noted)
        aside.rename(folder)
    except PartError as error:
        raise ShardError(f"{partial}: {error.reason}") from error
    except OSError:
        if not (folder / FACTS).exists():  # otherwise another worker was faster, with the same bytes
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return chunk


def _items(converter: Converter, units: Iterable[Any], done: Any) -> Iterator[Record | Rejected]:
    for unit in units:
        yield from converter.records(unit)
        if done is not None:
            done(1)
