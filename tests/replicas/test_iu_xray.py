"""Every record of the IU X-Ray replicas, and every study that gives none."""

import pytest

from data_pipelines.preparation import prepare
from data_pipelines.sources import iu_xray
from data_pipelines.sources.folder import split_of
from data_pipelines.sources.layout import LayoutError
from tests.replicas import iu_xray as replica
from tests.replicas.pictures import encoded
from tests.replicas.reading import prepared


@pytest.fixture(scope="module")
def r2gen(tmp_path_factory):
    return prepared("iu_xray", replica.r2gen, tmp_path_factory.mktemp("r2gen"))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return prepared("iu_xray", replica.original, tmp_path_factory.mktemp("original"))


def told(done) -> dict:
    return {id: (r.split, len(r.media), r.turns[1].text) for id, r in done.records.items()}


def test_r2gen_studies_keep_their_split_and_both_views(r2gen):
    assert told(r2gen) == {
        "iu_xray/CXR2384_IM-0942": ("train", 2, "The heart is XXXX in size. No pneumothorax ."),
        "iu_xray/CXR5_IM-0005": ("validation", 1, "Low volumes."),
        "iu_xray/CXR2384_IM-0943": ("test", 1, "Same patient again."),
    }
    record = r2gen.records["iu_xray/CXR2384_IM-0942"]
    assert record.turns[0].text.startswith("<media><media>")
    assert [media.frames[0] for media in record.media] == [encoded(i, "PNG", mode="L") for i in range(2)]
    assert {(r.task, r.language, r.topic, r.media[0].modality) for r in r2gen.records.values()} == {
        ("report", "en", "report", "DX")
    }


def test_a_patient_in_two_splits_is_reported(r2gen):
    assert r2gen.manifest["leaks"] == [
        {"kind": "patient", "records": {"train": "iu_xray/CXR2384_IM-0942", "test": "iu_xray/CXR2384_IM-0943"}}
    ]
    assert r2gen.manifest["unexpected_counts"]["test/report"] == {"expected": 590, "found": 1}


def test_r2gen_studies_without_a_record_are_listed(r2gen):
    assert r2gen.quarantined == {
        "train, row 1": "image file is missing",
        "train, row 2": "no report",
        "train, row 3": "image outside the source folder",
        "train, row 4": "no image named",
        "train, row 5": "no id, or no list of images",
        "train, row 6": "row is no object",
        "train, row 7": "id is used already",
    }


def test_original_reports_are_findings_then_impression(original):
    assert told(original) == {
        "iu_xray/CXR1": (split_of("CXR1", 0), 2, "The lungs & heart are XXXX. Normal."),
        "iu_xray/CXR2": (split_of("CXR2", 0), 1, "No acute disease."),
        "iu_xray/CXR10": (split_of("CXR10", 0), 1, "Listed twice. Same."),
    }
    assert original.quarantined == {
        "3.xml": "image file is missing",
        "4.xml": "no findings and no impression",
        "5.xml": "no image named",
        "6.xml": "damaged XML",
        "7.xml": "XML that declares entities",
    }
    assert original.manifest["unexpected_counts"] == {"all/report": {"expected": 3955, "found": 3}}


def test_another_seed_splits_the_originals_otherwise(tmp_path):
    options = replica.original(tmp_path / "raw")
    seed = next(seed for seed in range(99) if split_of("CXR1", seed) != split_of("CXR1", 0))
    records = prepare(iu_xray.converter(**options, seed=seed), tmp_path / "out")["records"]
    wanted = [split_of(f"CXR{n}", seed) for n in (1, 2, 10)]
    assert {split: tasks["report"] for split, tasks in records.items()} == {s: wanted.count(s) for s in set(wanted)}


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(LayoutError, match=r"expected annotation.json or ecgen-radiology/\*.xml, found nothing"):
        iu_xray.converter(tmp_path)
    (tmp_path / "annotation.json").write_text('{"training": []}')
    with pytest.raises(LayoutError, match="expected lists of studies under train, val, test, found training"):
        iu_xray.converter(tmp_path).units()
