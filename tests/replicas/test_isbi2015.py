"""Every landmark of the cephalogram replica in its frame, whoever annotated it, and every image that is refused."""

import numpy as np
import pytest

from data_pipelines.prompts import term
from data_pipelines.sources.isbi2015 import converter, facts
from data_pipelines.sources.layout import LayoutError
from tests.replicas import isbi2015
from tests.replicas.reading import frames, prepared

SPLIT = {"001": "train", "005": "train", "008": "train", "151": "validation", "301": "test", "302": "test"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("isbi2015")
        patch.setenv("UMIT_CACHE", str(root / "umit_cache"))
        return prepared("isbi2015", isbi2015.replica, root)


def truth(number: str, *annotators: str) -> dict[str, np.ndarray]:
    raw = np.mean([isbi2015.points(number, annotator) for annotator in annotators], axis=0)
    return dict(zip(facts()["landmarks"], raw * (600 / 1935, 800 / 2400), strict=True))


def test_every_landmark_is_the_mean_of_both_annotators_in_600_by_800(whole):
    wanted = {}
    for number, split in SPLIT.items():
        for landmark, (x, y) in truth(number, "junior", "senior").items():
            if (number, landmark) != ("005", "sella"):
                spoken = f"[{int(x + 0.5)},{int(y + 0.5)}]"
                wanted[f"isbi2015/{number}/{landmark}"] = (split, "landmark", "en", spoken)
    assert whole.said() == wanted
    point = whole.records["isbi2015/301/gonion"].target["items"][0]
    assert point["label"] == "gonion"
    np.testing.assert_allclose(point["point"], truth("301", "junior", "senior")["gonion"])


def test_what_cannot_be_used_is_counted_by_reason(whole):
    assert whole.quarantined == {
        "isbi2015/002": "annotation file is missing",
        "isbi2015/003": "not 19 landmarks of two numbers",
        "isbi2015/004": "annotation line is not x,y",
        "isbi2015/005/sella": "landmark outside the image",
        "isbi2015/006": "image is not 1935 x 2400",
        "isbi2015/007": "truncated or damaged image",
    }


def test_the_frame_says_how_many_millimetres_a_unit_is(whole):
    record = whole.records["isbi2015/001/porion"]
    frame = record.target["frame"]
    assert (frame["name"], frame["size"]) == ("resized", [600, 800])
    np.testing.assert_allclose(frame["mm_per_unit"], (0.3225, 0.3))
    assert (record.media[0].size, record.media[0].spacing_mm) == ((600, 800), (0.3225, 0.3))
    assert "600x800" in record.turns[0].text
    assert term("porion", "en") in record.turns[0].text


@pytest.mark.parametrize("number", ["001", "151"])
def test_the_image_is_the_whole_cephalogram_made_smaller(whole, number):
    pixels = frames(whole.records[f"isbi2015/{number}/sella"].media[0])[0]
    assert pixels.shape == (800, 600, 3)
    edge = round((100 + int(number)) * 600 / 1935)
    assert (pixels[:98, : edge - 3] == 255).all()
    assert (pixels[104:, edge + 3 :] == int(number)).all()


def test_either_annotator_alone_can_be_the_truth(tmp_path):
    found = prepared("isbi2015", isbi2015.replica, tmp_path, annotator="senior")
    assert not {"isbi2015/002/sella", "isbi2015/005/sella"} - set(found.records)
    point = found.records["isbi2015/302/menton"].target["items"][0]["point"]
    np.testing.assert_allclose(point, truth("302", "senior")["menton"])


def test_counts_are_compared_with_those_of_the_challenge(whole):
    assert whole.manifest["unexpected_counts"]["train/landmark"] == {"expected": 2850, "found": 56}


def test_wrong_folders_and_annotators_are_named(tmp_path):
    with pytest.raises(LayoutError, match="no folder RawImage"):
        converter(tmp_path)
    isbi2015.replica(tmp_path)
    with pytest.raises(LayoutError, match="--annotator: expected one of mean, senior, junior, found 'both'"):
        converter(tmp_path, annotator="both")
