"""A folder of DICOM or NIfTI files and a CSV become records; coordinates stay in place; no patient is named."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from data_pipelines.media.raster import decode
from data_pipelines.media.show import Shown
from data_pipelines.preparation import prepare
from data_pipelines.record import Media
from data_pipelines.shards import ShardError, open_shards
from data_pipelines.sources import dicom_folder, nifti_folder
from data_pipelines.sources.folder import placed, split_of
from data_pipelines.sources.label_file import LabelFileError
from tests.media.dicom_files import series, write

RNG = np.random.default_rng(0)
CT = RNG.integers(-500, 500, (40, 30)).astype(np.int16)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UMIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """Writes files and the CSV, prepares, returns (manifest, records by line)."""

    def run(files: dict, rows: list[dict], module=dicom_folder, **options):
        source = tmp_path / "source"
        for name, data in files.items():
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        columns = list(dict.fromkeys(["file", "label", *(c for row in rows for c in row)]))
        with open(tmp_path / "labels.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, columns)
            table.writeheader()
            table.writerows(rows)
        out = tmp_path / "out"
        manifest = prepare(module.converter(source, labels=tmp_path / "labels.csv", **options), out)
        records = [r for split in manifest["records"] for r in open_shards(out, split)]
        return manifest, {int(r.id.split("_")[-1]): r for r in records}

    return run


def _ct(patient: str, **attributes) -> bytes:
    return write(RNG.integers(-500, 500, (40, 30)).astype(np.int16), PatientID=patient, **attributes)


def test_labels_become_the_options_of_a_classification(folder):
    files = {f"{i}.dcm": _ct(f"p{i}") for i in range(3)}
    rows = [{"file": f"{i}.dcm", "label": label} for i, label in enumerate(["tumour", "normal", "cyst"])]
    manifest, records = folder(files, rows)
    assert records[2].target == {"kind": "options", "options": ["cyst", "normal", "tumour"], "index": 2, "first": 0}
    assert records[2].turns[0].text.endswith("0:cyst\n1:normal\n2:tumour")
    assert records[2].turns[1].text == "2:tumour"
    assert sum(n for tasks in manifest["records"].values() for n in tasks.values()) == 3
    assert records[2].label_kind == "manual"


def test_yes_and_no_are_a_closed_question_and_the_rest_open_ones(folder):
    rows = [
        {"file": "a.dcm", "question": "Is there a mass?", "answer": "No"},
        {"file": "a.dcm", "question": "有肿块吗？", "answer": "是", "language": "zh"},
        {"file": "a.dcm", "question": "What is it?", "answer": "A cyst."},
        {"file": "a.dcm", "answer": "No acute findings.", "task": "report"},
    ]
    _, records = folder({"a.dcm": _ct("p")}, rows)
    assert records[2].turns[0].text.endswith("Is there a mass?\n1:yes\n2:no")
    assert records[2].turns[1].text == "2:no"
    assert records[3].turns[1].text == "1：是"
    assert records[4].turns[1].text == "A cyst."
    assert records[5].target == {"kind": "text", "text": "No acute findings."}


def test_a_box_stays_on_its_pixels_when_the_image_is_shrunk(folder):
    pixels = np.zeros((3000, 1500), np.int16)
    pixels[600:1200, 300:900] = 1000
    data = write(pixels, WindowCenter=500, WindowWidth=1000)
    rows = [{"file": "a.dcm", "boxes": json.dumps([["plate", 300, 600, 900, 1200]])}]
    _, records = folder({"a.dcm": data}, rows)
    record = records[2]
    assert record.media[0].size == (512, 1024)
    x1, y1, x2, y2 = (round(c) for c in record.target["items"][0]["box"])
    bright = np.argwhere(decode(record.media[0].frames[0])[..., 0] > 127)
    assert (y1, x1) == tuple(bright.min(axis=0))
    assert (y2, x2) == tuple(bright.max(axis=0) + 1)
    assert "<|box_start|>(200,200),(600,400)<|box_end|>" in record.turns[1].text


LAYOUTS = {
    "axial": {},
    "sagittal": {"plane": "sagittal", "volume_size": (40, 48, 24)},
    "spacing": {"plane": "sagittal", "spacing": (0.4, 0.4, 0.4)},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("axes", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, -1, 0)])
def test_a_box_stays_on_its_voxels_when_a_series_is_turned(folder, axes, layout):
    voxels = np.full((12, 20, 16), -1000, np.int16)
    voxels[2:5, 6:12, 4:8] = 1000  # z 2..5, y 6..12, x 4..8 as stored
    files = {f"scan/{9 - i:03d}.dcm": data for i, data in enumerate(series(voxels, axes=axes))}
    rows = [{"file": "scan", "boxes": json.dumps([["block", 4, 6, 2, 8, 12, 5]])},
            {"file": "scan", "points": json.dumps([["middle", 6, 9, 3.5]])}]  # fmt: skip
    _, records = folder(files, rows, **layout)
    frames = np.stack([decode(frame)[..., 0] for frame in records[2].media[0].frames])
    bright = np.argwhere(frames > 127)[:, ::-1]
    box = records[2].target["items"][0]["box"]
    np.testing.assert_allclose(box, [*bright.min(axis=0), *(bright.max(axis=0) + 1)], atol=1 if layout else 1e-6)
    assert records[2].target["frame"]["name"] == "voxel"
    assert records[2].media[0].orientation == ("PIL" if layout else "LPS")
    np.testing.assert_allclose(
        records[3].target["items"][0]["point"],
        (bright.min(axis=0) + bright.max(axis=0) + 1) / 2,
        atol=0.5 if layout else 1e-6,
    )


def test_a_box_beyond_the_foreground_is_refused(folder):
    voxels = np.full((12, 20, 16), -1000, np.int16)
    voxels[2:8, 6:16, 4:12] = 100
    files = {f"scan/{i}.dcm": data for i, data in enumerate(series(voxels))}
    rows = [
        {"file": "scan", "boxes": json.dumps([["block", *box]])} for box in ((4, 6, 2, 8, 12, 5), (3, 6, 2, 8, 12, 5))
    ]
    manifest, records = folder(files, rows, foreground=True)
    assert records[2].media[0].size == (8, 10, 6)
    assert records[2].target["items"][0]["box"] == [0, 0, 0, 4, 6, 3]
    assert {q["id"]: q["reason"] for q in manifest["quarantined"]} == {
        "line 3": "boxes or points outside the image, or inverted"
    }


def test_a_cine_is_shown_by_some_of_its_frames(folder):
    frames = RNG.integers(0, 255, (50, 8, 8)).astype(np.uint8)
    _, records = folder({"a.dcm": write(frames, Modality="XA", PixelSpacing=None)}, [
        {"file": "a.dcm", "question": "What?", "answer": "A heart."}])  # fmt: skip
    assert records[2].media[0].size == (8, 8, 32)
    assert records[2].media[0].spacing_mm is None


def test_a_box_in_a_cine_follows_its_size_and_is_refused_where_frames_are_left_out(folder):
    few, many = (RNG.integers(0, 255, (count, 300, 520)).astype(np.uint8) for count in (3, 40))
    files = {
        name: write(frames, Modality="XA", PixelSpacing=None) for name, frames in (("a.dcm", few), ("b.dcm", many))
    }
    boxes = json.dumps([["stenosis", 52, 30, 1, 520, 300, 3]])
    manifest, records = folder(files, [{"file": name, "boxes": boxes} for name in files])
    assert records[2].media[0].size == (256, 148, 3)
    box = records[2].target["items"][0]["box"]
    np.testing.assert_allclose(box, [52 * 256 / 520, 30 * 148 / 300, 1, 256, 148, 3])
    assert box[3:] == [256, 148, 3]
    assert {q["id"]: q["reason"] for q in manifest["quarantined"]} == {
        "line 3": "boxes or points in a cine of which not every frame is shown"
    }


@pytest.mark.parametrize("side", range(1025, 3000, 97))
def test_a_box_at_the_far_edge_of_an_image_that_is_shrunk_is_not_beyond_it(side):
    media = Media((b"",), "image", "DX", (1024, 1000))
    assert placed([0, 0, side, side], Shown(media, raw_size=(side, side)), 2) == [0, 0, 1024, 1000]


def test_bad_rows_and_files_are_quarantined_by_line_and_the_rest_goes_on(folder):
    files = {
        "good.dcm": _ct("a"),
        "other.dcm": _ct("b"),
        "short.dcm": _ct("c")[:-100],
        "text.dcm": b"not an image",
        "us.dcm": write(CT, Modality="US", PatientID="d"),
        "marked.dcm": write(CT, BurnedInAnnotation="YES", PatientID="e"),
        "scan/1.dcm": series(RNG.integers(0, 9, (4, 5, 6)).astype(np.int16))[0],
        "scan/2.dcm": series(RNG.integers(0, 9, (4, 5, 6)).astype(np.int16))[3],
        "scan/3.dcm": series(RNG.integers(0, 9, (4, 5, 6)).astype(np.int16))[1],
    }
    names = ["good.dcm", "other.dcm", "short.dcm", "text.dcm", "us.dcm", "marked.dcm", "scan", "gone.dcm", "../x.dcm"]
    rows = [{"file": name, "label": "ab"[i % 2]} for i, name in enumerate(names)]
    rows.append({"file": "good.dcm", "label": "", "boxes": json.dumps([["x", 1, 2, 300, 4]])})
    inverted = "What is in <|box_start|>(300,200),(100,400)<|box_end|>?"
    rows.append({"file": "good.dcm", "label": "", "question": inverted, "answer": "A liver."})
    manifest, records = folder(files, rows)
    assert sorted(records) == [2, 3]
    assert {q["id"]: q["reason"] for q in manifest["quarantined"]} == {
        "line 4": "truncated pixel data",
        "line 5": "not a DICOM file",
        "line 6": "burned-in annotation likely (ultrasound, endoscopy, secondary capture or film)",
        "line 7": "burned-in annotation",
        "line 8": "missing slice",
        "line 9": "no such file",
        "line 10": "file outside the source folder",
        "line 11": "boxes or points outside the image, or inverted",
        "line 12": "boxes or points outside the image, or inverted",
    }


def test_likely_burned_in_text_can_be_allowed(folder):
    rows = [{"file": "us.dcm", "question": "What?", "answer": "A kidney."}]
    manifest, _ = folder({"us.dcm": write(CT, Modality="US")}, rows, allow_burned_in=True)
    assert manifest["quarantined"] == []


def test_nothing_usable_is_one_line(folder):
    with pytest.raises(ShardError, match="no usable record; quarantined 1: no such file"):
        folder({"a.dcm": _ct("a")}, [{"file": "gone.dcm", "label": "x"}])


def test_all_records_of_a_patient_are_on_one_side_and_the_same_with_the_same_seed(folder):
    files = {f"{p}_{i}.dcm": _ct(f"patient{p}") for p in range(12) for i in range(2)}
    rows = [{"file": name, "label": "ab"[i % 2]} for i, name in enumerate(files)]
    manifest, records = folder(files, rows, seed=3)
    sides = {}
    for record in records.values():
        assert sides.setdefault(record.patient_id, record.split) == record.split
    assert len(sides) == 12
    again, _ = folder({}, rows, seed=3)
    assert again["shards"] == manifest["shards"]


def test_the_split_is_eighty_ten_ten():
    splits = [split_of(f"patient {i}", 0) for i in range(5000)]
    shares = [splits.count(s) / len(splits) for s in ("train", "validation", "test")]
    np.testing.assert_allclose(shares, (0.8, 0.1, 0.1), atol=0.015)


def test_a_stated_split_holds_for_all_rows_of_a_patient(folder):
    files = {"a.dcm": _ct("one"), "b.dcm": _ct("one"), "c.dcm": _ct("two")}
    rows = [{"file": "a.dcm", "label": "x", "split": "test"}, {"file": "b.dcm", "label": "y", "split": ""},
            {"file": "c.dcm", "label": "x", "split": "train"}]  # fmt: skip
    _, records = folder(files, rows)
    assert [records[line].split for line in (2, 3, 4)] == ["test", "test", "train"]


def test_a_patient_on_two_sides_is_an_error_that_names_the_lines(folder):
    files = {"a.dcm": _ct("one"), "b.dcm": _ct("one")}
    rows = [{"file": "a.dcm", "label": "x", "split": "test"}, {"file": "b.dcm", "label": "y", "split": "train"}]
    with pytest.raises(LabelFileError, match="lines 2 and 3: one patient in test and in train"):
        folder(files, rows)


def test_labels_that_differ_in_case_only_are_named(folder):
    files = {"a.dcm": _ct("one"), "b.dcm": _ct("two")}
    rows = [{"file": "a.dcm", "label": "Normal"}, {"file": "b.dcm", "label": "normal"}]
    with pytest.raises(LabelFileError, match="labels 'Normal' and 'normal' differ in case only: write them as one"):
        folder(files, rows)


def test_a_row_that_names_its_patient_is_refused(folder):
    rows = [{"file": "a.dcm", "question": "How is Wiktoria doing?", "answer": "well"},
            {"file": "a.dcm", "question": "What?", "answer": "see PATIENT-4711"},
            {"file": "a.dcm", "question": "What?", "answer": "a cyst"}]  # fmt: skip
    manifest, records = folder({"a.dcm": write(CT)}, rows)
    assert [q["reason"] for q in manifest["quarantined"]] == ["the row's words name the patient"] * 2
    assert list(records) == [4]


def test_nothing_of_the_header_or_the_file_name_reaches_the_shards(folder, tmp_path):
    data = write(CT, PatientBirthDate="19410203", StudyDate="20200131", InstitutionName="Elsewhere General")
    rows = [{"file": "Wiktoria_4711.dcm", "question": "What?", "answer": "a cyst"}]
    _, records = folder({"Wiktoria_4711.dcm": data}, rows)
    text = repr(records) + "".join(path.read_text() for path in (tmp_path / "out").iterdir() if path.suffix == ".json")
    for secret in ("Wiktoria", "Wanda", "4711", "19410203", "20200131", "Elsewhere", "1.2.826"):
        assert secret not in text


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR"])
def test_a_nifti_box_stays_on_its_voxels(folder, codes):
    voxels = np.full((16, 20, 12), -1000, np.int16)
    voxels[4:8, 6:12, 2:5] = 1000
    image = nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.0, 1.0]))
    target = nib.orientations.axcodes2ornt(tuple(codes))
    turned = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), target))
    stored = np.argwhere(np.asanyarray(turned.dataobj) > 0)
    box = [*stored.min(axis=0).tolist(), *(stored.max(axis=0) + 1).tolist()]
    rows = [{"file": "a.nii", "boxes": json.dumps([["block", *box]])}]
    _, records = folder({"a.nii": turned.to_bytes()}, rows, nifti_folder, modality="CT")
    record = records[2]
    bright = np.argwhere(np.stack([decode(f)[..., 0] for f in record.media[0].frames]) > 127)[:, ::-1]
    np.testing.assert_allclose(record.target["items"][0]["box"], [*bright.min(axis=0), *(bright.max(axis=0) + 1)])
    assert (record.media[0].orientation, record.media[0].modality) == ("LPS", "CT")


def test_nifti_files_without_a_patient_are_patients_of_their_own(folder):
    image = nib.Nifti1Image(RNG.integers(0, 99, (6, 5, 4)).astype(np.int16), np.eye(4)).to_bytes()
    rows = [{"file": name, "label": name, "patient": patient} for name, patient in
            (("a.nii", ""), ("b.nii", ""), ("c.nii", "x"), ("d.nii", "x"))]  # fmt: skip
    files = {row["file"]: image[:-1] + bytes([i]) for i, row in enumerate(rows)}
    _, records = folder(files, rows, nifti_folder)
    hashes = [records[line].patient_id for line in (2, 3, 4, 5)]
    assert len(set(hashes)) == 3
    assert hashes[2] == hashes[3]
