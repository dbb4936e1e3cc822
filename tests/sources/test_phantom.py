"""The phantom: the same patient every time, files that read back as written, truth that fits the pixels."""

import dataclasses
from collections import Counter, defaultdict

import numpy as np
import pytest

from data_pipelines.media.dicom import read_dicom
from data_pipelines.media.raster import decode
from data_pipelines.media.series import read_series, volume_of
from data_pipelines.preparation import prepare
from data_pipelines.record import Record
from data_pipelines.seeded import generator
from data_pipelines.shards import open_shards
from data_pipelines.sources import phantom, phantom_files
from data_pipelines.sources.asks import asks
from data_pipelines.sources.derive import derive
from data_pipelines.sources.measure import boxes_of
from data_pipelines.sources.phantom_anatomy import LABELS, VERTEBRAE, Grid, draw_patient, paint
from data_pipelines.sources.phantom_images import ct
from data_pipelines.sources.phantom_menu import MENU, serve
from data_pipelines.sources.phantom_study import examine, read_ct, split_of, study_of
from umit_jax.targets import Frame


def patient_records(index: int, **changes) -> list[Record]:
    return list(phantom.Phantom(**{"patients": 200, "seed": 5, **changes}).records(index))


@pytest.fixture(scope="module")
def many() -> list[Record]:
    """Records of 200 patients."""
    return [record for i in range(200) for record in patient_records(i)]


def test_a_patient_depends_on_seed_and_index_alone():
    first = patient_records(3)
    patient_records(7)
    assert patient_records(3) == first
    assert patient_records(3, seed=6) != first


def test_fewer_patients_are_a_prefix(tmp_path):
    prepare(phantom.Phantom(patients=5, seed=1), tmp_path / "five")
    prepare(phantom.Phantom(patients=9, seed=1), tmp_path / "nine")
    for split in ("train", "test"):
        five, nine = (open_shards(tmp_path / name, split) for name in ("five", "nine"))
        assert 0 < len(five) <= len(nine)
        assert [five[i] for i in range(len(five))] == [nine[i] for i in range(len(five))]


def test_every_prefix_has_its_share_of_each_split():
    splits = [split_of(i, 0.15, 0.05) for i in range(2000)]
    for n in (40, 100, 1000, 2000):
        counts = Counter(splits[:n])
        assert abs(counts["test"] - 0.15 * n) <= 2
        assert abs(counts["validation"] - 0.05 * n) <= 2


def test_all_tasks_and_both_languages_in_every_split(many):
    tasks = {"vqa", "report", "classification", "detection", "landmark", "caption", "comparison"}
    for split in ("train", "test"):
        for language in ("en", "zh"):
            assert {r.task for r in many if r.split == split and r.language == language} == tasks
    assert len({r.id for r in many}) == len(many)


def test_every_record_says_that_it_is_synthetic(many):
    assert all(r.synthetic and r.label_kind == "synthetic" and r.dataset == "phantom" for r in many)


def test_a_patient_is_in_one_split_only(many):
    splits = defaultdict(set)
    for record in many:
        splits[record.patient_id].add(record.split)
    assert len(splits) == 200
    assert all(len(found) == 1 for found in splits.values())


def test_no_answer_of_a_topic_dominates(many):
    answers = defaultdict(Counter)
    for record in many:
        if record.task in ("vqa", "classification"):
            topic = record.topic.split("/")[0] if record.topic.startswith("visible/") else record.topic
            text = record.turns[-1].text if record.target["kind"] == "text" else record.target["index"]
            answers[record.task, topic, record.language if record.target["kind"] == "text" else ""][text] += 1
    large = {topic: counts for topic, counts in answers.items() if counts.total() >= 40}
    assert len(large) >= 8
    for topic, counts in large.items():
        # 60 % of the drawn prevalence, and what chance adds to it at this size
        limit = 0.6 + 1.6 * np.sqrt(0.24 / counts.total())
        assert counts.most_common(1)[0][1] / counts.total() <= limit, topic


def test_the_commonest_report_is_rare(many):
    reports = Counter(r.target["text"] for r in many if r.task == "report" and r.language == "en")
    assert reports.most_common(1)[0][1] <= 0.06 * reports.total()
    assert max(len(text.split()) for text in reports) <= 36


def test_places_vary_so_that_the_mean_place_is_poor(many):
    boxes, points = defaultdict(list), defaultdict(list)
    for record in many:
        for item in record.target.get("items", []):
            size = Frame.from_json(record.target["frame"]).size
            if record.task == "detection":
                boxes[record.topic].append(np.array(item["box"]) / (size + size))
            elif record.task == "landmark":
                points[record.topic].append(np.array(item["point"]) / size)
    for topic in ("box/heart", "box/liver"):
        found = np.array(boxes[topic])
        mean = found.mean(axis=0)
        low, high = np.maximum(found[:, :2], mean[:2]), np.minimum(found[:, 2:], mean[2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        area = (found[:, 2:] - found[:, :2]).prod(axis=1) + (mean[2:] - mean[:2]).prod()
        assert (shared / (area - shared)).mean() < 0.5
    for topic in ("landmark/focal_uptake", "landmark/heart_apex"):
        assert np.linalg.norm(np.std(points[topic], axis=0)) > 0.12


def test_a_ct_reads_back_as_it_was_written_in_either_format(tmp_path):
    for ct_format in ("dicom", "nifti"):
        examination = examine(2, 1, tmp_path / ct_format, ct_format)
        volume, masks = read_ct(examination)
        assert np.abs(volume.voxels_ZYX - examination.ct.values).max() <= 0.5
        assert volume.affine_lps == pytest.approx(examination.ct.grid.affine_lps(), abs=1e-4)
        heart = examination.ct.labels == LABELS["heart"]
        assert np.array_equal(masks["heart"], heart)


def test_dicom_and_nifti_give_the_same_records(tmp_path):
    made = [patient_records(4, ct_format=f) for f in ("dicom", "nifti")]
    assert made[0] == made[1]


def test_radiographs_look_the_same_whichever_way_round_they_are_stored(tmp_path):
    examination = examine(2, 1, tmp_path)
    shown = []
    for inverted in (False, True):
        path = tmp_path / f"{inverted}.dcm"
        phantom_files.write_radiograph(examination.identity, examination.frontal, "frontal", inverted, path)
        shown.append(read_dicom(path).render().astype(int))
    assert np.abs(shown[0] - shown[1]).max() <= 1


def test_uptake_reads_back_in_place_and_in_units(tmp_path):
    examination = examine(2, 1, tmp_path)
    volume = volume_of(read_dicom(tmp_path / "pet.dcm"))
    assert volume.orientation == "LIP"
    assert np.abs(volume.voxels_ZYX - examination.pet.values).max() <= 0.5 / phantom_files.PET_UNITS
    assert volume.spacing_mm[0] == pytest.approx(examination.pet.grid.step_mm[0], abs=1e-4)


def test_slices_are_ordered_by_position_not_by_name(tmp_path):
    examination = examine(2, 0, tmp_path)
    names = sorted(path.name for path in (tmp_path / "ct").iterdir())
    volume, _ = read_series([tmp_path / "ct" / name for name in names])
    assert np.array_equal(volume.voxels_ZYX, examination.ct.values)


def test_boxes_are_tight_on_what_is_painted(tmp_path):
    examination = examine(2, 6, tmp_path)
    study = study_of(examination, "train")
    heart = (examination.frontal.labels == LABELS["heart"]).any(axis=2)
    assert study.view("frontal").boxes["heart"] == boxes_of(heart)
    (box,) = study.view("ct").boxes["liver"]
    inside = examination.ct.labels
    liver = np.isin(inside, [LABELS[n] for n in ("liver", "liver_cyst_1", "liver_cyst_2", "liver_cyst_3")])
    scale = np.array([64, 64, 28]) / np.array([56, 56, 8])
    assert np.array(box).reshape(2, 3) * scale == pytest.approx(np.array(boxes_of(liver)[0]).reshape(2, 3), abs=1e-3)


def test_landmarks_lie_where_they_should(tmp_path):
    for index in range(8):
        examination = examine(2, index, tmp_path / str(index))
        study = study_of(examination, "train")
        x, y = study.view("pet").points["focal_uptake"]
        grey = decode(study.view("pet").media.frames[0])[..., 0].astype(float)
        assert grey[int(y), int(x)] > 0.6 * grey.max()
        labels = examination.ct.labels
        scale = np.array([64, 64, 28]) / np.array([56, 56, 8])
        for name, point in study.view("ct").points.items():
            column, row, level = (int(c) for c in np.array(point) * scale)
            assert labels[level, row, column] == LABELS[name]
        for name, (x, y) in study.view("frontal").points.items():
            assert (examination.frontal.labels[int(y), int(x)] != 0).any(), name


def test_findings_are_in_the_picture():
    """What a patient has is painted, what it has not is not."""
    grid = Grid.around((0.0, 0.0, 20.0), (6.0, 6.0, 6.0), (64, 44, 80))
    for index in range(30):
        patient = draw_patient(generator(9, str(index)))
        labels = paint(patient, grid)
        assert (labels == LABELS["pleural_effusion"]).any() == (patient.effusion != "no")
        assert (labels == LABELS["lung_mass"]).any() == (patient.mass != "no")
        assert sum((labels == LABELS[f"liver_cyst_{n}"]).any() for n in (1, 2, 3)) == len(patient.cysts)
        side = np.sign(np.nonzero(labels == LABELS["liver"])[2].mean() - 32)
        assert side == (1 if patient.mirrored else -1)
        assert all((labels == LABELS[name]).any() for name in VERTEBRAE)


def test_a_lateral_shift_of_the_field_of_view_moves_the_voxels_not_the_patient():
    patient = draw_patient(generator(9, "x"))
    one = ct(generator(0, "a"), patient)
    two = ct(generator(0, "b"), patient)
    assert one.grid != two.grid
    for name in ("liver", "spleen"):
        places = []
        for acquired in (one, two):
            z, y, x = (axis.mean() for axis in np.nonzero(acquired.labels == LABELS[name]))
            places.append(np.array(acquired.grid.first_mm) + np.array(acquired.grid.step_mm) * (x, y, z))
        assert places[0] == pytest.approx(places[1], abs=8)


def test_nothing_of_a_header_reaches_the_shards(tmp_path):
    prepare(phantom.Phantom(patients=4, seed=3, keep_raw=tmp_path / "raw"), tmp_path / "out")
    identities = [phantom_files.Identity(3, index) for index in range(4)]
    secrets = [text for i in identities for text in (i.name, i.number, i.uid("study"), i.uid("ct"), i.uid("ct", 0))]
    secrets += ["Phantomsson", "19010203", "20010203"]
    raw = b"".join(path.read_bytes() for path in (tmp_path / "raw").rglob("*.dcm"))
    texts = [path.read_bytes() for path in (tmp_path / "out").glob("*.json")]
    for split in ("train", "validation", "test"):  # shards are compressed: what matters is what a reader gets
        if any((tmp_path / "out").glob(f"*-{split}.*")):
            records = open_shards(tmp_path / "out", split)
            texts += [repr(records[i]).encode() for i in range(len(records))]
    shards = b"".join(texts)
    assert b"phantom-3-0000001" in shards
    assert all(secret.encode() in raw for secret in (identities[0].name, identities[0].number, "19010203"))
    assert not [secret for secret in secrets if secret.encode() in shards]


def test_raw_files_are_gone_unless_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert len(patient_records(0)) > 10
    assert list(tmp_path.iterdir()) == []
    patient_records(0, keep_raw=tmp_path / "raw")
    assert len(list((tmp_path / "raw" / "0000000" / "ct").iterdir())) == 28


def test_wrong_options_name_themselves():
    with pytest.raises(phantom.PhantomError, match="patients"):
        phantom.Phantom(patients=0)
    with pytest.raises(phantom.PhantomError, match="test_fraction"):
        phantom.Phantom(patients=2, test_fraction=0.9, validation_fraction=0.2)
    with pytest.raises(phantom.PhantomError, match="ct_format"):
        phantom.Phantom(patients=2, ct_format="minc")


def test_a_study_answers_far_more_than_the_menu_serves(tmp_path):
    study = study_of(examine(2, 1, tmp_path), "train")
    assert len(list(asks(study))) > 60
    served = list(serve(generator(0, "m"), study))
    assert [number for _, number in served] == list(range(sum(course.count for course in MENU)))
    assert len({(ask.task, ask.topic, ask.views[0].key) for ask, _ in served}) == len(served)


def test_derive_takes_a_phantom_study_like_any_other(tmp_path):
    study = dataclasses.replace(study_of(examine(2, 1, tmp_path), "train"), id="other")
    records = list(derive(study, per_topic=1))
    assert {r.language for r in records} == {"en", "zh"}
    assert len({r.topic for r in records}) > 20
