"""Every box and class of the RSNA replica, every image and row that is refused, and the split by hash."""

import hashlib
import json

import numpy as np
import pytest

from data_pipelines.sources.folder import split_of
from data_pipelines.sources.layout import LayoutError
from data_pipelines.sources.rsna import converter
from launch.cli import main
from tests.replicas import rsna
from tests.replicas.reading import frames, prepared


def key(name: str) -> str:
    return "rsna/" + hashlib.sha256(rsna.image_id(name).encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("rsna")
        patch.setenv("UMIT_CACHE", str(root / "umit_cache"))
        return prepared("rsna", rsna.replica, root)


def test_every_image_has_its_class_and_every_pneumonia_its_boxes(whole):
    classes = {"normal": 0, "other": 1, "one box": 2, "two boxes": 2, "same box twice": 2, "plain dicom": 0,
               "outside": 2, "empty box": 2}  # fmt: skip
    boxes = {"one box": [(156, 313, 625, 938)], "two boxes": [(16, 31, 63, 94), (477, 31, 1000, 1000)],
             "same box twice": [(78, 78, 219, 219)]}  # fmt: skip
    labels = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
    wanted = {}
    for name, index in classes.items():
        split = split_of(rsna.image_id(name), 0)
        wanted[f"{key(name)}/class"] = (split, "classification", "en", f"{index}:{labels[index]}")
    for name, corners in boxes.items():
        said = "".join(
            f"<|object_ref_start|>pneumonia<|object_ref_end|><|box_start|>({a},{b}),({c},{d})<|box_end|>"
            for a, b, c, d in corners
        )
        wanted[f"{key(name)}/detection"] = (split_of(rsna.image_id(name), 0), "detection", "en", said)
    assert whole.said() == wanted


def test_images_without_pneumonia_are_asked_for_boxes_where_that_is_wanted(whole, tmp_path):
    found = prepared("rsna", rsna.replica, tmp_path, negatives=True)
    more = {name: found.said()[f"{key(name)}/detection"][3] for name in ("normal", "other", "plain dicom")}
    assert more == dict.fromkeys(more, "none")
    assert found.said() | whole.said() == found.said()
    assert len(found.said()) == len(whole.said()) + 3
    assert found.manifest["unexpected_counts"]["all/detection"]["expected"] == 26684


def test_what_cannot_be_used_is_counted_by_reason(whole):
    assert whole.quarantined == {
        f"{key('outside')}/detection": "box outside the image, empty or inverted",
        f"{key('empty box')}/detection": "box outside the image, empty or inverted",
        key("no numbers"): "pneumonia without four numbers of a box",
        key("box on negative"): "box without pneumonia",
        key("odd target"): "not one target of 0 or 1",
        key("two classes"): "several classes for one image",
        key("no class"): "no class for the image",
        key("no label"): "no label for the image",
        key("unknown class"): "unknown class",
        key("disagreement"): "class and boxes disagree",
        key("no file"): "image file is missing",
        key("cut file"): "no pixel data",
        key("marked"): "burned-in annotation",
    }


def test_boxes_are_in_pixels_of_the_image_as_published(whole):
    target = whole.records[f"{key('two boxes')}/detection"].target
    assert target["frame"] == {"name": "raw", "size": [64, 64], "mm_per_unit": None}
    assert [item["box"] for item in target["items"]] == [[1, 2, 4, 6], [30.5, 2, 64, 64]]


def test_the_image_is_the_jpeg_of_the_file_without_its_comment(whole):
    media = whole.records[f"{key('other')}/class"].media[0]
    assert media.frames[0].startswith(b"\xff\xd8")
    assert rsna.image_id("other").encode() not in media.frames[0]
    assert (media.size, media.spacing_mm, media.modality) == ((64, 64), (0.14, 0.14), "CR")
    assert abs(frames(media)[0, ..., 0].astype(int) - rsna.pixels("other")).max() < 40
    plain = whole.records[f"{key('plain dicom')}/class"].media[0]
    assert plain.frames[0].startswith(b"\x89PNG")
    np.testing.assert_array_equal(frames(plain)[0, ..., 0], rsna.pixels("plain dicom"))


def test_no_id_of_the_source_is_written(whole):
    text = repr(whole.records) + json.dumps(whole.manifest)
    assert not [name for name in rsna.IMAGES if rsna.image_id(name) in text]


def test_the_command_says_what_was_left_out_and_which_counts_differ(tmp_path, capsys):
    source = rsna.replica(tmp_path / "raw")["source"]
    assert main(["prepare", "rsna", "--source", str(source), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert "umit prepare: rsna: all/detection: published 6012, found 3" in said
    assert "umit prepare: rsna: all/classification: published 26684, found 8" in said
    assert "umit prepare: rsna: left out 2: box outside the image, empty or inverted" in said


def test_another_seed_is_another_split(whole, tmp_path):
    found = prepared("rsna", rsna.replica, tmp_path, seed=5)
    assert (whole.manifest["seed"], found.manifest["seed"]) == (0, 5)
    for name in ("normal", "other", "one box", "two boxes"):
        assert found.records[f"{key(name)}/class"].split == split_of(rsna.image_id(name), 5)


def test_counts_are_compared_over_all_splits(whole):
    assert whole.manifest["unexpected_counts"] == {
        "all/classification": {"expected": 26684, "found": 8},
        "all/detection": {"expected": 6012, "found": 3},
    }


def test_a_table_with_other_columns_is_named(tmp_path):
    source = rsna.replica(tmp_path)["source"]
    (source / "stage_2_train_labels.csv").write_text("patientId,box\n")
    with pytest.raises(LayoutError, match=r"stage_2_train_labels\.csv: expected columns patientId, x, y"):
        converter(source).units()
    with pytest.raises(LayoutError, match=r"expected stage_2_train_labels\.csv, found"):
        converter(tmp_path / "rsna" / "stage_2_test_images")
