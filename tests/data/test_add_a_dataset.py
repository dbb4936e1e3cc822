"""The converter printed in docs/add_a_dataset.md works as the page says."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from toy_records import noise, png

from data_pipelines.preparation import prepare
from data_pipelines.shards import open_shards
from data_pipelines.sources.catalogue import Entry

PAGE = Path(__file__).parents[2] / "docs" / "add_a_dataset.md"


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)[1]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """The page's module, and a folder in its layout: 12 photographs of 6 patients, and three bad ones."""
    monkeypatch.setenv("UMIT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "photos.py"
    path.write_text(block("python"), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("photos", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "photos", module)
    spec.loader.exec_module(module)
    source = tmp_path / "source"
    source.mkdir()
    table = {}
    for i in range(12):
        (source / f"{i:02d}.png").write_bytes(png(noise(24, 30, i)))
        table[f"{i:02d}.png"] = {"class": module.CLASSES[i % 2], "patient": f"Doe^{i // 2}"}
    (source / "broken.png").write_bytes(b"no image")
    table |= {
        "broken.png": {"class": "normal", "patient": "Doe^0"},
        "absent.png": {"class": "normal", "patient": "Doe^0"},
        "00.png": {"class": "strange", "patient": "Doe^0"},
    }
    (source / "labels.json").write_text(json.dumps(table))
    return module, source


def test_the_pages_converter_gives_every_record_and_every_reason(photos, tmp_path):
    module, source = photos
    manifest = prepare(module.converter(source), tmp_path / "out")
    records = {r.id: r for split in manifest["records"] for r in open_shards(tmp_path / "out", split)}
    assert sorted(records) == [f"photos/{i:02d}.png" for i in range(1, 12)]
    reasons = {row["id"]: row["reason"] for row in manifest["quarantined"]}
    assert reasons.pop("photos/broken.png").startswith("not a PNG, JPEG")
    assert reasons == {"photos/00.png": "unknown class", "photos/absent.png": "no such file"}
    assert {id: r.turns[1].text for id, r in records.items()} == {
        f"photos/{i:02d}.png": f"{i % 2}:{module.CLASSES[i % 2]}" for i in range(1, 12)
    }
    for i in range(2, 12, 2):  # both photographs of a patient are on one side
        first, second = records[f"photos/{i:02d}.png"], records[f"photos/{i + 1:02d}.png"]
        assert (first.split, first.patient_id) == (second.split, second.patient_id)
    text = "".join(repr(r) for r in records.values())
    assert "Doe" not in text


def test_the_pages_catalogue_entry_has_the_fields_of_one():
    ((_, values),) = yaml.safe_load(block("yaml")).items()
    assert Entry(**values).flags == ["source!", "seed"]
