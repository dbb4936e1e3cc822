"""The converter printed in docs/add_a_dataset.md works as the page says, and so do the entries that make it known."""

import json
import re
import sys
import types
from pathlib import Path

import pytest
from toy_records import noise, png

from data_pipelines.preparation import prepare
from data_pipelines.shards import open_shards
from data_pipelines.sources.catalogue import FILE, catalogue, read_catalogue
from data_pipelines.sources.layout import LayoutError
from launch import prepare as command
from launch.cli import main
from tests.replicas import test_every_converter as every
from tests.replicas import test_list as lists

PAGE = Path(__file__).parents[2] / "docs" / "add_a_dataset.md"
GOOD = [f"{i:02d}.png" for i in range(12)]


def blocks(language: str) -> list[str]:
    """The page's blocks of a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.S | re.M)


@pytest.fixture
def load(monkeypatch):
    """A function that makes one of the page's Python blocks the module of a name."""

    def made(name: str, text: str) -> types.ModuleType:
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(text, name, "exec"), vars(module))
        return module

    return made


@pytest.fixture
def photos(tmp_path, monkeypatch, load):
    """The page's module, and a folder in its layout: 12 photographs of 6 patients, and bad rows of every kind."""
    monkeypatch.setenv("UMIT_CACHE", str(tmp_path / "cache"))
    module = load("data_pipelines.sources.photos", blocks("python")[0])
    source = tmp_path / "source"
    source.mkdir()
    table = {}
    for i, name in enumerate(GOOD):
        (source / name).write_bytes(png(noise(24, 30, i)))
        table[name] = {"class": module.CLASSES[i % 2], "patient": f"Doe^{i // 2}"}
    (source / "broken.png").write_bytes(b"no image")
    table |= {
        "broken.png": {"class": "normal", "patient": "Doe^0"},
        "absent.png": {"class": "normal", "patient": "Doe^0"},
        "../out.png": {"class": "normal", "patient": "Doe^0"},
        "strange.png": {"class": "strange", "patient": "Doe^0"},
        "classless.png": {"patient": "Doe^0"},
        "nobody.png": {"class": "normal"},
        "text.png": "normal",
        "list.png": {"class": ["normal"], "patient": "Doe^0"},
    }
    (source / "labels.json").write_text(json.dumps(table))
    return module, source


def test_the_pages_converter_gives_every_record_and_every_reason(photos, tmp_path):
    module, source = photos
    manifest = prepare(module.converter(source), tmp_path / "out")
    records = {r.id: r for split in manifest["records"] for r in open_shards(tmp_path / "out", split)}
    assert sorted(records) == [f"photos/{name}" for name in GOOD]
    reasons = {row["id"].removeprefix("photos/"): row["reason"] for row in manifest["quarantined"]}
    assert reasons.pop("broken.png").startswith("not a PNG, JPEG")
    assert reasons == {
        "absent.png": "image file is missing",
        "../out.png": "image outside the source folder",
        "strange.png": "unknown class",
        "list.png": "unknown class",
        "classless.png": "no class",
        "text.png": "no class",
        "nobody.png": "no patient",
    }
    assert {id: r.turns[1].text for id, r in records.items()} == {
        f"photos/{name}": f"{i % 2}:{module.CLASSES[i % 2]}" for i, name in enumerate(GOOD)
    }
    for first, second in zip(GOOD[::2], GOOD[1::2], strict=True):  # both photographs of a patient are on one side
        one, two = records[f"photos/{first}"], records[f"photos/{second}"]
        assert (one.split, one.patient_id) == (two.split, two.patient_id)
    text = "".join(repr(r) for r in records.values())
    assert "Doe" not in text


def test_a_table_of_another_form_is_named(photos):
    module, source = photos
    for text, said in (("[]", r"labels\.json: expected rows by file, found list"), ("{", r"labels\.json: no JSON")):
        (source / "labels.json").write_text(text)
        with pytest.raises(LayoutError, match=said):
            module.converter(source).units()


@pytest.fixture
def known(tmp_path, monkeypatch, load):
    """What the page says is entered: in the catalogue, among the replicas and in the page of data sets."""
    monkeypatch.setenv("UMIT_CACHE", str(tmp_path / "cache"))
    converter, replica, registered = blocks("python")
    load("data_pipelines.sources.photos", converter)
    load("tests.replicas.photos", replica)
    found = eval(f"{{{registered}}}", {"photos": sys.modules["tests.replicas.photos"]})
    assert list(found) == ["photos"]
    for name, function in found.items():
        monkeypatch.setitem(every.REPLICAS, name, function)
    entries = read_catalogue(FILE.read_text(encoding="utf-8") + "".join(blocks("yaml")))
    row, _, block = "".join(blocks("markdown")).partition("\n\n")
    table, _, rest = every.PAGE.read_text(encoding="utf-8").partition("\n\n## What each folder must hold\n")
    section, _, end = rest.partition("\n## ")
    block = "".join(line.removeprefix("    ") for line in block.splitlines(keepends=True))
    page = tmp_path / "data.md"
    page.write_text(f"{table}\n{row}\n\n## What each folder must hold\n{section}\n{block}\n## {end}", encoding="utf-8")
    for module in (every, lists, command):
        monkeypatch.setattr(module, "catalogue", lambda: entries)
    for module in (every, lists):
        monkeypatch.setattr(module, "PAGE", page)
    return entries


def test_with_the_pages_entries_the_set_is_listed_and_prepared(known, tmp_path, capsys):
    assert list(known) == [*catalogue(), "photos"]
    assert main(["prepare", "--list"]) == 0
    assert known["photos"].listed("photos") in capsys.readouterr().out
    source = every.REPLICAS["photos"](tmp_path / "raw")["source"]
    assert main(["prepare", "photos", "--source", str(source), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["records"] == {"train": {"classification": 8}, "test": {"classification": 2}}
    reasons = {row["id"]: row["reason"] for row in manifest["quarantined"]}
    assert (reasons["photos/unlabelled.png"], len(reasons)) == ("no class", 3)


def test_with_the_pages_entries_the_tests_of_every_converter_pass(known, tmp_path, monkeypatch, capsys):
    every.test_the_page_of_data_sets_says_what_the_catalogue_says("photos", tmp_path / "page")
    every.test_the_page_of_data_sets_has_no_other_rows()
    every.test_it_is_listed_and_takes_the_flags_that_the_catalogue_says("photos", capsys)
    lists.test_the_page_of_data_sets_says_what_each_folder_must_hold()
    every.test_the_same_bytes_come_out_again_after_a_kill("photos", tmp_path / "kill", monkeypatch)


@pytest.mark.parametrize("left_out", ["row", "block"])
def test_without_an_entry_of_the_page_of_data_sets_a_test_says_so(known, tmp_path, left_out):
    page = tmp_path / "data.md"
    text = page.read_text(encoding="utf-8")
    if left_out == "row":
        page.write_text(re.sub(r"\n\| photos .*", "", text), encoding="utf-8")
        with pytest.raises(AssertionError, match="photos"):
            every.test_the_page_of_data_sets_says_what_the_catalogue_says("photos", tmp_path / "page")
    else:
        page.write_text(text.replace("**photos**", ""), encoding="utf-8")
        with pytest.raises(AssertionError, match="photos"):
            lists.test_the_page_of_data_sets_says_what_each_folder_must_hold()
