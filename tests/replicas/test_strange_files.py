"""Downloads as they are found on people's disks: saved again by other programs, cut, edited by hand. Each gives its
records and its reasons, or one line that names the file."""

import json
import struct

import numpy as np
import pytest
from PIL import Image

from data_pipelines.parts import PartWriter, Rejected
from data_pipelines.sources import hub, m3d_cap, m3d_seg, npz, rsna
from data_pipelines.sources.layout import LayoutError
from tests.replicas import isbi2015, iu_xray, m3d_vqa, path_vqa
from tests.replicas import m3d_cap as cap
from tests.replicas import m3d_seg as seg
from tests.replicas import rsna as challenge
from tests.replicas.pictures import encoded, write_file
from tests.replicas.reading import prepared


def test_a_table_of_volumes_with_inches_windows_line_ends_and_a_monstrous_cell(tmp_path):
    def replica(root):
        options = m3d_vqa.replica(root)
        plain = ",".join([m3d_vqa.FIRST, "{}", "1", "{}", *m3d_vqa.PLANES, "axial", "A"])
        texts = ['a 5" lesion', "t", 'lesions of 2" and 3"', "caf\xe9", "t", 'again 5"', "t"]
        questions = ["Which?", 'Is "it" quoted?', "Which plane?", "Which one?", "Q" * 140_000, "Any?", "Last?"]
        rows = [",".join(m3d_vqa.HEADER), *(plain.format(*pair) for pair in zip(texts, questions, strict=True))]
        table = options["source"] / "M3D_VQA" / "M3D_VQA_val.csv"
        table.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode("latin-1"))
        return options

    found = prepared("m3d_vqa", replica, tmp_path, subset=("val",))
    asked = {id: record.turns[0].text.partition("\n")[0] for id, record in found.records.items()}
    assert [question.rpartition(">")[2] for question in asked.values()] == [
        "Which?", 'Is "it" quoted?', "Which plane?", "Which one?", "Any?", "Last?"
    ]  # fmt: skip
    assert list(asked) == [f"m3d_vqa/val/{row}" for row in (1, 2, 3, 4, 6, 7)]
    assert found.quarantined == {"m3d_vqa/val/5": "row that is no CSV"}


def test_a_table_of_radiographs_in_another_encoding_or_with_a_monstrous_cell(tmp_path):
    def replica(root):
        options = challenge.replica(root)
        table = next(root.rglob("stage_2_train_labels.csv"))
        table.write_bytes(table.read_bytes().rstrip() + b"\r\ncaf\xe9,,,,,0\r\n")
        return options

    as_it_is = prepared("rsna", challenge.replica, tmp_path / "one")
    found = prepared("rsna", replica, tmp_path / "two")
    assert found.said() == as_it_is.said()
    assert sorted({*found.quarantined.values()} - {*as_it_is.quarantined.values()}) == []
    assert len(found.quarantined) == len(as_it_is.quarantined) + 1
    table = next((tmp_path / "two").rglob("stage_2_train_labels.csv"))
    table.write_bytes(table.read_bytes() + b"q" * 140_000 + b",,,,,0\r\n")
    with pytest.raises(LayoutError, match=r"stage_2_train_labels\.csv: no CSV after line \d+: field larger"):
        rsna.converter(table.parent).units()


def test_landmarks_behind_a_byte_order_mark_and_images_in_capitals(tmp_path):
    def replica(root):
        for folder, number in {"TrainingData": "001", "Test1Data": "151", "Test2Data": "301"}.items():
            (root / "RawImage" / folder).mkdir(parents=True)
            Image.new("L", isbi2015.SIZE).save(root / "RawImage" / folder / f"{number}.BMP")
            for annotator in ("junior", "senior"):
                text = "\ufeff" + "\r\n".join(isbi2015.lines(number, annotator))
                write_file(root / "AnnotationsByMD" / f"400_{annotator}" / f"{number}.txt", text)
        return {"source": root}

    found = prepared("isbi2015", replica, tmp_path)
    assert (len(found.records), found.quarantined) == (3 * 19, {})


def test_reports_in_capitals_and_in_an_encoding_that_does_not_exist(tmp_path):
    def replica(root):
        options = iu_xray.original(root)
        folder = root / "ecgen-radiology"
        (folder / "10.xml").rename(folder / "10.XML")
        klingon = iu_xray.REPORTS[1].replace("utf-8", "klingon")
        write_file(folder / "11.xml", klingon)
        return options

    found = prepared("iu_xray", replica, tmp_path)
    assert "iu_xray/CXR10" in found.records
    assert found.quarantined["11.xml"] == "damaged XML"


def test_a_caption_may_hold_what_some_programs_take_for_the_end_of_a_line(tmp_path):
    def replica(root):
        write_file(root / "peir_gross.tsv", "filename\tcaption\r\na b.JPG\tLIVER:\x0bseen\u2028from below.\r\n")
        write_file(root / "peir_gross_images" / "a b.JPG", encoded(1))
        return {"source": root}

    found = prepared("peir_gross", replica, tmp_path)
    assert [record.turns[-1].text for record in found.records.values()] == ["LIVER: seen from below."]
    assert found.quarantined == {}


def test_an_encrypted_archive_of_arrays_is_named(tmp_path):
    path = tmp_path / "breastmnist.npz"
    np.savez(path, train_images=np.zeros((2, 28, 28), np.uint8))
    data = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        struct.pack_into("<H", data, data.find(mark) + flags, 1)
    path.write_bytes(data)
    with pytest.raises(LayoutError, match=r"breastmnist\.npz: array train_images: .*encrypted"):
        npz.shape_of(path, "train_images")


def test_objects_of_another_kind_are_a_reason_and_suffixes_may_be_in_capitals(tmp_path):
    def replica(root):
        row = {"query": "Where?", "response": "<ref-object><bbox>", "images": ["x y ü.JPG"]}
        objects = {"ref": ["it"], "bbox": [[1, 2, 3, 4]]}
        rows = [row | {"objects": objects | {"image_id": number}} for number in (3, {"a": 1}, [0])]
        write_file(root / "Train Ü.JSONL", "\ufeff" + "\r\n".join(map(json.dumps, rows)))
        write_file(root / "x y ü.JPG", encoded(1))
        return {"source": root}

    found = prepared("jsonl", replica, tmp_path)
    assert list(found.records) == ["jsonl/Train Ü.JSONL/2"]
    assert set(found.quarantined.values()) == {"image_id of the objects fits no image"}


def test_a_name_that_no_file_can_have_is_no_such_file(tmp_path):
    def replica(root):
        write_file(root / "labels.csv", f"file,label\n{'x' * 300}.nii,a\n\x01.nii,b\n")
        return {"source": root, "labels": root / "labels.csv"}

    with pytest.raises(ValueError, match=r"no usable record; quarantined 2: no such file \(2\)"):
        prepared("nifti_folder", replica, tmp_path)


def test_a_damaged_row_group_is_named(tmp_path):
    options = path_vqa.hub(tmp_path)
    file = next((tmp_path / "data").glob("validation-*"))
    data = bytearray(file.read_bytes())
    data[8:400] = bytes(392)
    file.write_bytes(data)
    converter = hub.HubVqa("path_vqa", options["source"], {})
    unit = next(unit for unit in converter.units() if unit[0].endswith(file.name))
    with pytest.raises(LayoutError, match=rf"{file.name}: row group 0 is damaged"):
        list(converter.records(unit))


def test_a_volume_that_is_listed_twice_gives_its_records_once(tmp_path):
    def segmented(root):
        options = seg.original(root)
        listed = next(root.rglob("0000.json"))
        lists = json.loads(listed.read_text())
        lists["train"].append(lists["train"][0])
        lists["test"].append(lists["train"][0])
        listed.write_text(json.dumps(lists))
        return options

    def captioned(root):
        options = cap.prepared(root)
        listed = next(root.rglob("M3D_Cap.json"))
        lists = json.loads(listed.read_text())
        lists["test"].append(lists["train"][0])
        listed.write_text(json.dumps(lists))
        return options

    found = prepared("m3d_seg", segmented, tmp_path / "seg")
    assert found.quarantined["m3d_seg/0000/1"] == "volume is in the training list too"
    assert found.records["m3d_seg/0000/1/0"].split == "train"
    found = prepared("m3d_cap", captioned, tmp_path / "cap")
    assert [r for r in found.quarantined.values() if r == "volume is listed twice"] == ["volume is listed twice"]
    (tmp_path / "cap" / "M3D_Cap.json").write_text('{"train": [], "validation": [], "test": null}')
    with pytest.raises(LayoutError, match="expected the lists train, validation, test"):
        m3d_cap.converter(tmp_path / "cap").units()
    (options := seg.original(tmp_path / "names"))["source"].joinpath("dataset_info.json").write_text("[1]")
    with pytest.raises(LayoutError, match=r"dataset_info\.json: expected a list of class names"):
        m3d_seg.converter(**options).units()


def test_the_name_of_a_rejected_input_is_cut_to_what_a_page_can_show(tmp_path):
    with PartWriter(tmp_path / "part") as part:
        part.write(Rejected("x" * 10_000, "row is no object"))
    (found,) = json.loads((tmp_path / "part" / "facts.json").read_text())["quarantined"]
    assert found == {"id": "x" * 1024, "reason": "row is no object"}
