"""What holds for every converter: the same bytes again, from Apache Beam's processes and after a kill; and it is
listed."""

import contextlib
import dataclasses
import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_pipelines import preparation
from data_pipelines.inputs import noting
from data_pipelines.media.deidentify import KEY_FILE
from data_pipelines.pipeline import beam_flags
from data_pipelines.preparation import prepare
from data_pipelines.sources.catalogue import catalogue
from launch.cli import main
from tests.replicas.pictures import encoded
from tests.replicas.reading import contents
from tests.replicas.registry import REPLICAS

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
IN_ONE_FILE = ("medmnist", "vqa_rad/hub", "path_vqa/hub", "tfds/array_record", "tfds/tfrecord")  # among the options
FAST_BEAM = ("slake",)  # starting Beam takes seconds, so the other converters wait for `make slow`
COLUMNS = ("name", "tasks", "licence", "where", "records published", "records of the replica", "coordinates")


@dataclasses.dataclass(frozen=True)
class Interrupted:
    """A converter that notes its units, and ends the run at one of them."""

    inner: Any
    seen: list[str]
    stop_at: str = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def records(self, unit: Any) -> Iterator[Any]:
        self.seen.append(repr(unit))
        if repr(unit) == self.stop_at:
            raise KeyboardInterrupt
        return self.inner.records(unit)


def _module(key: str) -> Any:
    return importlib.import_module(f"data_pipelines.sources.{_name(key)}")


def _name(key: str) -> str:
    return key.split("/")[0]


@pytest.mark.parametrize("name", REPLICAS)
def test_the_same_bytes_come_out_again_after_a_kill(name, tmp_path, monkeypatch):
    options = REPLICAS[name](tmp_path / "raw")
    monkeypatch.setattr(preparation, "CHUNK_UNITS", 1)
    converter = _module(name).converter(**options)
    units = [repr(unit) for unit in converter.units()]
    assert len(units) > 1
    manifest = prepare(converter, tmp_path / "one")
    assert manifest["quarantined"], "a replica has dirty cases"
    wanted = contents(tmp_path / "one")

    stop = len(units) // 2
    with pytest.raises(KeyboardInterrupt):
        prepare(Interrupted(converter, [], units[stop]), tmp_path / "three")
    assert not (tmp_path / "three").exists()
    seen: list[str] = []
    prepare(Interrupted(converter, seen), tmp_path / "three")
    assert seen == units[stop:]
    assert contents(tmp_path / "three") == wanted


@pytest.mark.parametrize("name", REPLICAS)
def test_every_file_that_a_record_is_made_from_is_noticed_when_it_changes(name, tmp_path, opened):
    options = REPLICAS[name](tmp_path / "raw")
    converter = _module(name).converter(**options)
    before = [repr(unit) for unit in converter.units()], converter.options
    with noting() as noted:
        for unit in converter.units():
            with opened(tmp_path / "raw") as files:
                list(converter.records(unit))
            for file in files - set(noted):  # then the whole job is another one
                old = os.stat(file)
                os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns + 1))
                again = _module(name).converter(**options)
                assert ([repr(unit) for unit in again.units()], again.options) != before, file
                os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert noted or name in IN_ONE_FILE


def test_a_run_that_goes_on_converts_again_what_has_changed_and_nothing_else(tmp_path, monkeypatch):
    options = REPLICAS["slake"](tmp_path / "raw")
    monkeypatch.setattr(preparation, "CHUNK_UNITS", 1)
    converter = _module("slake").converter(**options)
    units = [repr(unit) for unit in converter.units()]
    with pytest.raises(KeyboardInterrupt):
        prepare(Interrupted(converter, [], units[-1]), tmp_path / "out")
    changed = next((tmp_path / "raw").rglob("xmlab1/source.jpg"))
    users = []
    for unit in converter.units():
        with noting() as noted:
            list(converter.records(unit))
        users += [repr(unit)] if str(changed) in noted else []
    assert 1 < len(users) < len(units) - 1
    changed.write_bytes(encoded(99))
    seen: list[str] = []
    prepare(Interrupted(converter, seen), tmp_path / "out")
    assert seen == [*users, units[-1]]
    prepare(converter, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


@pytest.fixture
def opened():
    """A context that collects the regular files below a folder which Python opens for reading."""
    found: list[set[str]] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and found and isinstance(arguments[0], str) and os.path.isfile(arguments[0]):
            found[-1].add(os.path.abspath(arguments[0]))

    sys.addaudithook(hook)  # for the life of the process, idle but inside the context

    @contextlib.contextmanager
    def collect(folder: Path) -> Iterator[set[str]]:
        files: set[str] = set()
        found.append(files)
        yield files
        found.clear()
        below = [Path(file) for file in files if Path(file).is_relative_to(folder)]
        ours = [file for file in below if file.name == KEY_FILE or "cache" in file.parts]  # written by the converter
        files.intersection_update(str(file) for file in set(below) - set(ours))

    return collect


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST_BEAM else pytest.mark.slow) for n in REPLICAS])
def test_apache_beam_on_this_machine_writes_the_shards_of_one_process(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(PAGE.parents[1]))  # of Beam's worker processes
    monkeypatch.setattr(preparation, "CHUNK_UNITS", 1)
    options = REPLICAS[name](tmp_path / "raw")
    prepare(_module(name).converter(**options), tmp_path / "one")
    prepare(_module(name).converter(**options), tmp_path / "two", pipeline=beam_flags("direct", 2))
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.parametrize("name", REPLICAS)
def test_it_is_listed_and_takes_the_flags_that_the_catalogue_says(name, capsys):
    assert main(["prepare", "--list"]) == 0
    entry = catalogue()[_name(name)]
    listed = capsys.readouterr().out
    expected = f"records expected: {entry.published}" if entry.published else ""
    for text in (f"{_name(name)}: {entry.what}", f"from: {entry.where}", f"licence: {entry.license}", expected):
        assert text in listed
    parameters = inspect.signature(_module(name).converter).parameters
    if all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        assert set(parameters) == set(entry.flags)


@pytest.mark.parametrize("name", list(catalogue()))
def test_the_page_of_data_sets_says_what_the_catalogue_says(name, tmp_path):
    entry = catalogue()[name]
    found = []
    for key in (key for key in REPLICAS if _name(key) == name):
        folder = tmp_path / key.replace("/", "_")
        records = prepare(_module(key).converter(**REPLICAS[key](folder / "raw")), folder / "out")["records"]
        counts = {f"{split}/{task}": n for split, tasks in records.items() for task, n in tasks.items()}
        found.append(": ".join([*key.split("/")[1:], _counts(counts)]))
    replicas = "; ".join(found) or "-"
    row = (name, entry.tasks, entry.license, entry.where, entry.published or "-", replicas, entry.frame)
    assert "| " + " | ".join(row) + " |" in PAGE.read_text(encoding="utf-8").splitlines()


def test_the_page_of_data_sets_has_no_other_rows():
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert lines[0] == "| " + " | ".join(COLUMNS) + " |"
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[1:]] == list(catalogue())


def _counts(counts: Any) -> str:
    return ", ".join(f"{key} {n:,}" for key, n in counts.items()) or "-"
