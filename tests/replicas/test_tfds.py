"""Every record of the TensorFlow Datasets replicas, in both file formats, and what is refused; no TensorFlow."""

import json
import subprocess
import sys

import numpy as np
import pytest

from data_pipelines.shard_format import load_tfds
from data_pipelines.shards import read_manifest
from data_pipelines.sources.folder import split_of
from data_pipelines.sources.layout import LayoutError
from data_pipelines.sources.tfds import converter
from launch.cli import main
from tests.replicas import tfds
from tests.replicas.reading import frames, prepared


def box(name: str, *corners: str) -> str:
    return "".join(f"<|object_ref_start|>{name}<|object_ref_end|><|box_start|>{c}<|box_end|>" for c in corners)


def expected(train: dict[str, str], name: str = "tfds_scans") -> dict[str, tuple[str, str, str, str]]:
    """train: {number of the row: its split}"""
    rows = {
        "0/label": ("classification", "0:benign"),
        "0/caption": ("caption", "A small nodule."),
        "0/objects/bbox/0": ("detection", box("nodule", "(250,100),(750,500)", "(500,500),(1000,1000)")),
        "0/objects/bbox/1": ("detection", box("mass", "(0,0),(1000,1000)")),
        "1/label": ("classification", "2:normal"),
        "2/caption": ("caption", "No label here."),
        "4/label": ("classification", "1:malignant"),
        "4/objects/bbox/1": ("detection", box("mass", "(0,0),(500,500)")),
    } | {f"{6 + i}/label": ("classification", f"{i % 3}:{tfds.CLASSES[i % 3]}") for i in range(70)}
    return {f"{name}/train/{k}": (train[k.split("/")[0]], task, "en", said) for k, (task, said) in rows.items()}


REJECTED = {
    "tfds_scans/train/2/label": "no label",
    "tfds_scans/train/3/label": "label out of range",
    "tfds_scans/train/4/objects/bbox/0": "box outside the image, empty or inverted",
    "tfds_scans/train/5": "truncated or damaged image",
}


def test_the_newest_version_in_array_records_keeps_its_splits(tmp_path):
    found = prepared("tfds", tfds.array_record, tmp_path)
    wanted = expected({str(i): "train" for i in range(76)})
    wanted["tfds_scans/test/0/label"] = ("test", "classification", "en", "1:malignant")
    wanted["tfds_scans/test/0/caption"] = ("test", "caption", "en", "Two lines.")
    assert found.said() == wanted
    unknown = {"tfds_scans/unlabelled": "split is none of train, validation and test"}
    assert found.quarantined == REJECTED | unknown
    record = found.records["tfds_scans/train/75/label"]
    assert (record.license, record.media[0].modality, record.topic) == ("CC-BY-4.0", "CT", "label")
    assert record.turns[0].text.endswith("\n0:benign\n1:malignant\n2:normal")
    np.testing.assert_array_equal(frames(record.media[0])[0], tfds.pixels(10 + 69))


def test_tfrecords_of_one_split_are_divided_by_hash(tmp_path):
    found = prepared("tfds", tfds.tfrecord, tmp_path)
    assert found.said() == expected({str(i): split_of(f"train/{i}", 0) for i in range(76)})
    assert found.quarantined == REJECTED
    assert set(found.manifest["records"]) == {"train", "validation", "test"}
    assert {record.license for record in found.records.values()} == {"unspecified"}


def test_names_of_files_are_no_captions(tmp_path):
    found = prepared("tfds", tfds.array_record, tmp_path)
    assert "Smith" not in repr(found.records) + json.dumps(found.manifest)


def test_a_choice_of_features_is_kept_to(tmp_path):
    found = prepared("tfds", tfds.array_record, tmp_path, subset=("caption",))
    assert {record.task for record in found.records.values()} == {"caption"}
    assert found.quarantined["tfds_scans/train/1"] == "nothing to ask about"


def test_the_command_takes_the_name_behind_a_colon(tmp_path, capsys):
    source = tfds.array_record(tmp_path / "raw")["source"]
    argv = ["prepare", "tfds:scans", "--source", str(source), "--out", str(tmp_path / "out"), "--modality", "CT"]
    assert main(argv) == 0
    assert read_manifest(tmp_path / "out")["name"] == "tfds_scans"
    assert main(["prepare", "medmnist:scans", "--source", str(source), "--out", str(tmp_path / "out")]) == 2
    assert "medmnist:scans" in capsys.readouterr().err


def test_tensorflow_is_not_imported(tmp_path):
    tfds.array_record(tmp_path / "raw")
    code = (
        "import sys, pathlib; from data_pipelines.sources.tfds import converter;"
        f"c = converter(pathlib.Path({str(tmp_path / 'raw')!r}), dataset='scans');"
        "n = sum(1 for unit in c.units() for _ in c.records(unit));"
        "sys.exit(n < 70 or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(LayoutError, match=r"expected NAME/VERSION/features\.json"):
        converter(tmp_path)
    tfds.array_record(tmp_path)
    with pytest.raises(LayoutError, match=r"expected other/VERSION/features\.json"):
        converter(tmp_path, dataset="other")
    with pytest.raises(LayoutError, match="--subset: expected one of label, caption, objects/bbox, found 'file_name'"):
        converter(tmp_path, dataset="scans", subset=("file_name",)).units()
    f = load_tfds().features
    many = f.FeaturesDict({"image": f.Image(shape=(None, None, 3)), "label": f.ClassLabel(num_classes=101)})
    folder = tfds.write(tmp_path / "many" / "1.0.0", "array_record", {"train": tfds.ROWS["test"]}, many)
    with pytest.raises(LayoutError, match="label: 101 classes, more than 100 in a question"):
        converter(folder).units()
    (tmp_path / "scans" / "1.10.0" / "scans-test.array_record-00000-of-00001").unlink()
    with pytest.raises(LayoutError, match=r"scans-test\.array_record-00000-of-00001: not there"):
        converter(tmp_path, dataset="scans").units()


def test_a_tfrecord_that_was_cut_is_named(tmp_path):
    folder = tfds.tfrecord(tmp_path)["source"]
    path = folder / "scans-train.tfrecord-00000-of-00002"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(LayoutError, match="expected 38 whole records, found 38, the last one cut"):
        converter(folder).units()
