"""Every record of the PEIR Gross replica, and every line that gives none."""

import pytest

from data_pipelines.media.raster import decode, read_image
from data_pipelines.preparation import prepare
from data_pipelines.prompts.render import wordings
from data_pipelines.sources import peir_gross
from data_pipelines.sources.folder import split_of
from data_pipelines.sources.layout import LayoutError
from tests.replicas import peir_gross as replica
from tests.replicas.pictures import encoded
from tests.replicas.reading import prepared


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return prepared("peir_gross", replica.replica, tmp_path_factory.mktemp("peir_gross"))


def test_captions_come_out_in_the_official_split(whole):
    assert whole.said() == {
        "peir_gross/101.jpg": ("train", "report", "en", "HEART: Myocardial infarction , old scar"),
        "peir_gross/109.jpg": ("train", "report", "en", "SPLEEN: Only in the list."),
        "peir_gross/102.jpg": ("test", "report", "en", "LIVER: Cirrhosis."),
        "peir_gross/108.jpg": ("test", "report", "en", "BRAIN: In CMYK."),
    }
    asked = {record.turns[0].text.removeprefix("<media>") for record in whole.records.values()}
    assert asked <= set(wordings("report", "specimen", "en"))
    (frame,) = whole.records["peir_gross/108.jpg"].media[0].frames
    assert (decode(frame) == read_image(encoded(108, mode="CMYK"))).all()


def test_an_incomplete_crawl_is_reported_image_by_image_and_in_numbers(whole):
    assert whole.manifest["quarantined"] == [
        {"id": "103.jpg", "reason": "image file is missing"},
        {"id": "101.jpg", "reason": "listed twice"},
        {"id": "104.jpg", "reason": "in no split file"},
        {"id": "105.jpg", "reason": "no caption"},
        {"id": "106.jpg", "reason": "in both split files"},
        {"id": "107.jpg", "reason": "truncated or damaged image"},
        {"id": "no tab", "reason": "in no split file"},
    ]
    assert whole.manifest["unexpected_counts"] == {
        "test/report": {"expected": 745, "found": 2},
        "train/report": {"expected": 6698, "found": 2},
    }


def test_without_the_lists_images_are_split_by_a_hash_of_their_name(tmp_path):
    done = prepared("peir_gross", replica.without_lists, tmp_path, seed=3)
    assert {id: row[0] for id, row in done.said().items()} == {
        f"peir_gross/{name}": split_of(name, 3) for name in ("101.jpg", "102.jpg")
    }
    assert done.manifest["unexpected_counts"] == {"all/report": {"expected": 7443, "found": 2}}


def test_images_may_be_elsewhere(tmp_path):
    options = replica.without_lists(tmp_path / "raw")
    (tmp_path / "raw" / "peir_gross_images").rename(tmp_path / "elsewhere")
    with pytest.raises(LayoutError, match="expected a folder peir_gross_images, found"):
        peir_gross.converter(**options)
    manifest = prepare(peir_gross.converter(**options, images=tmp_path / "elsewhere"), tmp_path / "out")
    assert manifest["quarantined"] == []


def test_half_a_split_is_refused(tmp_path):
    options = replica.replica(tmp_path)
    (tmp_path / "peir_gross" / "test_images.tsv").unlink()
    with pytest.raises(LayoutError, match=r"expected both train_images.tsv and test_images.tsv, found peir"):
        peir_gross.converter(**options)
