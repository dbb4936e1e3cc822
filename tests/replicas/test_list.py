"""What `umit prepare --list` says is what the converters take: values of --subset, flags, and published numbers."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.record import SPLITS
from data_pipelines.sources.catalogue import Entry, catalogue
from data_pipelines.sources.layout import LayoutError
from data_pipelines.sources.medmnist import sets
from launch.cli import main
from tests.replicas import chimed_vl, m3d_seg, m3d_vqa, pmc_oa, slake, tfds
from tests.replicas.pictures import write_file

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
VALUES = [name for name, entry in catalogue().items() if entry.subsets]
OPEN = {"m3d_seg": (m3d_seg.original, "0020", "0001"), "tfds": (tfds.array_record, "caption", "file_name")}


@pytest.fixture
def listed(capsys) -> dict[str, list[str]]:
    """{name: the lines of its entry} of --list."""
    assert main(["prepare", "--list"]) == 0
    blocks = re.split(r"\n(?=\S)", capsys.readouterr().out)
    return {block.partition(":")[0]: block.splitlines() for block in blocks if ":" in block.splitlines()[0]}


def values_of(lines: list[str]) -> list[str]:
    """The values of --subset that an entry lists."""
    start = next(i for i, line in enumerate(lines) if line.startswith("  --subset:"))
    assert all(line.startswith("    ") for line in lines[start + 1 :])
    return [line.strip().partition(":")[0] for line in lines[start + 1 :]]


def whole(name: str, folder: Path) -> dict[str, Any]:
    """Options of a set of which everything is there that --subset can name."""
    if name == "medmnist":
        for flag in sets():
            write_file(folder / f"{flag}.npz", b"")
        return {"source": folder}
    if name == "pmc_oa":
        pmc_oa.aligned(folder)
        return pmc_oa.beta(folder)
    replicas = {"slake": slake.replica, "m3d_vqa": m3d_vqa.replica, "chimed_vl": chimed_vl.texts}
    return replicas[name](folder)


@pytest.mark.parametrize("name", VALUES)
def test_every_value_of_subset_that_is_listed_is_taken_and_no_other(name, tmp_path, listed):
    convert = importlib.import_module(f"data_pipelines.sources.{name}").converter
    options = whole(name, tmp_path)
    values = values_of(listed[name])
    assert values == list(catalogue()[name].subsets)
    made = [convert(**options, subset=[value]) for value in values]
    assert len(set(map(repr, made))) == len(values)
    for value in ("", "all", values[0].upper(), f"{values[0]}x"):
        with pytest.raises(LayoutError, match=f"--subset: expected one of {', '.join(values)}, found '{value}'"):
            convert(**options, subset=[value])


@pytest.mark.parametrize("name", OPEN)
def test_values_that_the_source_tells_are_taken_where_they_are_there(name, tmp_path, listed):
    replica, there, other = OPEN[name]
    assert values_of(listed[name]) == []
    options = replica(tmp_path)
    convert = importlib.import_module(f"data_pipelines.sources.{name}").converter
    assert convert(**options, subset=(there,)).units()
    with pytest.raises(LayoutError, match=f"--subset: expected one of .*{there}.*, found '{other}'"):
        convert(**options, subset=(other,)).units()


def test_every_set_that_takes_subset_says_what_it_names():
    taking = {name for name, entry in catalogue().items() if "subset" in entry.flags}
    assert taking == {name for name, entry in catalogue().items() if entry.subset} == set(VALUES) | set(OPEN)


@pytest.mark.parametrize("name", list(catalogue()))
def test_the_flags_that_are_listed_are_those_that_are_taken(name, listed, tmp_path, capsys):
    entry = catalogue()[name]
    (line,) = [line for line in listed[name] if line.startswith("  flags: ")]
    named = dict(re.findall(r"(--[a-z-]+)( \(required\))?", line))
    assert [flag.removeprefix("--").replace("-", "_") for flag in named] == list(entry.flags)
    assert tuple(flag.removeprefix("--") for flag, required in named.items() if required) == entry.required
    other = "--patients" if name != "phantom" else "--size"
    assert main(["prepare", name, "--out", str(tmp_path / "out"), other, "1"]) == 2
    assert f"{other}: has no meaning for {name}" in capsys.readouterr().err


def test_what_the_folder_must_hold_is_listed_for_every_set_that_reads_one(listed):
    for name, entry in catalogue().items():
        assert bool(entry.folder) == ("source" in entry.flags)
        assert all(f"    {line}" in listed[name] for line in entry.folder.splitlines())


def test_the_page_of_data_sets_says_what_each_folder_must_hold():
    section = PAGE.read_text(encoding="utf-8").partition("\n## What each folder must hold\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\*\*(\w+)\*\*\n\n```text\n(.*?)```$", section, re.M | re.S)
    assert found == [(name, entry.folder) for name, entry in catalogue().items() if entry.folder]


@pytest.mark.parametrize("name", ["medmnist", "slake"])
def test_the_numbers_of_the_parts_are_those_of_the_whole(name):
    entry = catalogue()[name]
    for key, count in entry.records.items():
        assert sum(counts.get(key, 0) for counts in entry.subsets.values()) == count


def test_medmnists_numbers_are_a_record_an_image_and_for_chestmnist_one_a_label(listed):
    assert list(catalogue()["medmnist"].subsets) == list(sets())
    path, chest = listed["medmnist"][-18], listed["medmnist"][-17]
    assert path == (
        "    pathmnist: train/classification 89,996, validation/classification 10,004, test/classification 7,180"
    )
    images = (78468, 11219, 22433)
    counts = ", ".join(f"{split}/classification {14 * n:,}" for split, n in zip(SPLITS, images, strict=True))
    assert chest == f"    chestmnist: {counts}"


def test_published_numbers_are_of_the_whole_or_else_of_layouts_or_subsets():
    assert Entry("", "", "", "", "", records={"a": 1}, subsets={"x": {"b": 2}}).published == "a 1"
    assert Entry("", "", "", "", "", subsets={"x": {"b": 2000}, "y": {}}).published == "x: b 2,000"
    assert (
        Entry("", "", "", "", "", layouts={"x": {"b": 2}, "y": {"b": 3}}, doubt="?").published == "x: b 2; y: b 3 (?)"
    )
