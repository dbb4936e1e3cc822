"""Every record of the PathVQA replica; pickles that hold more than data are refused and run nothing."""

import collections
import pickle

import numpy as np
import pytest

from data_pipelines.media.raster import decode, read_image
from data_pipelines.sources import path_vqa
from data_pipelines.sources.layout import LayoutError
from data_pipelines.sources.plain_pickle import load_plain
from tests.replicas import path_vqa as replica
from tests.replicas.pictures import encoded
from tests.replicas.reading import prepared

LISTED = "\n1:yes\n2:no"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return prepared("path_vqa", replica.original, tmp_path_factory.mktemp("original"))


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return prepared("path_vqa", replica.hub, tmp_path_factory.mktemp("hub"))


def told(done) -> dict:
    return {id: (r.split, r.topic, *(turn.text for turn in r.turns)) for id, r in done.records.items()}


def test_the_original_rows_come_out_in_their_split(original):
    assert told(original) == {
        "path_vqa/train/0": (
            "train",
            "open/where",
            "<media>where are liver stem cells located here?",
            "in the canals of hering",
        ),
        "path_vqa/train/1": ("train", "closed/is", f"<media>is fat necrosis present?{LISTED}", "1:yes"),
        "path_vqa/train/2": ("train", "open/how", "<media>how many nuclei are seen?", "2"),
        "path_vqa/validation/0": (
            "validation",
            "closed/does",
            f"<media>does this image show the brain?{LISTED}",
            "2:no",
        ),
        "path_vqa/test/0": ("test", "open/what", "<media>what is present?", "cardiovascular"),
    }
    assert original.quarantined == {
        "train, row 3": "image file is missing",
        "train, row 4": "truncated or damaged image",
        "train, row 5": "no question",
        "train, row 6": "row is no dict",
        "val, row 1": "no answer",
    }


def test_each_layout_is_compared_with_its_own_published_counts(original, hub):
    assert original.manifest["unexpected_counts"]["validation/vqa"] == {"expected": 9462, "found": 1}
    assert hub.manifest["unexpected_counts"]["validation/vqa"] == {"expected": 6259, "found": 1}


def test_a_cmyk_image_is_stored_as_the_rgb_that_is_shown(original, hub):
    cmyk = encoded(2, mode="CMYK")
    for record in (original.records["path_vqa/train/2"], hub.records["path_vqa/train/3"]):
        (frame,) = record.media[0].frames
        assert frame[:4] == b"\x89PNG"
        assert (decode(frame) == read_image(cmyk)).all()


def test_parquet_rows_are_numbered_across_files(hub):
    assert told(hub) == {
        "path_vqa/train/0": ("train", "closed/is", f"<media>is fat necrosis present?{LISTED}", "1:yes"),
        "path_vqa/train/1": ("train", "open/what", "<media>what is it?", "fat"),
        "path_vqa/train/3": ("train", "open/where", "<media>where?", "here"),
        "path_vqa/validation/0": ("validation", "open/how", "<media>how many?", "3"),
    }
    assert hub.quarantined == {"train, row 2": "no image", "test, row 0": "no answer"}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_comes_back_from_every_protocol(protocol, tmp_path):
    shared = ["a", 1]
    data = [{"image": "x", "n": -(2**70), "f": 0.5, "deep": [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ()]}, None, True]
    data += [shared, shared, {"é": {1: "漢字"}}, [], {}, [3e300, 300, 70000, -1]]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(data, protocol))
    assert load_plain(tmp_path / "x.pkl") == data


def test_a_set_and_a_text_of_python_2_come_back(tmp_path):
    (tmp_path / "set.pkl").write_bytes(pickle.dumps({"a", frozenset((1, 2))}, 4))
    assert load_plain(tmp_path / "set.pkl") == {"a", frozenset((1, 2))}
    (tmp_path / "old.pkl").write_bytes(b"\x80\x02]q\x00(U\x05caf\xc3\xa9q\x01U\x01\xe9e.")
    assert load_plain(tmp_path / "old.pkl") == ["café", "é"]


class Harm:
    def __reduce__(self):
        return (open, ("harm.txt", "w"))


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("harm", [Harm(), np.float64(1.0), collections.OrderedDict(a=1), open])
def test_anything_but_plain_data_is_refused_and_nothing_runs(harm, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([{"image": harm}], protocol))
    with pytest.raises(LayoutError, match=r"x.pkl: refused: expected only lists, dicts, texts and numbers, found "):
        load_plain(tmp_path / "x.pkl")
    assert not (tmp_path / "harm.txt").exists()


@pytest.mark.parametrize("data", [b"", b"no pickle", b"\x80\x04]", b"\x80\x04e.", b"\x80\x04}q\x00]s."])
def test_a_damaged_pickle_is_named(data, tmp_path):
    (tmp_path / "x.pkl").write_bytes(data)
    with pytest.raises(LayoutError, match=r"x.pkl: damaged, or no pickle"):
        load_plain(tmp_path / "x.pkl")


def test_other_keys_are_named(tmp_path):
    source = replica.original(tmp_path)["source"]
    file = source / "split" / "qas" / "train" / "train_qa.pkl"
    file.write_bytes(pickle.dumps([{"img_id": "train_0001", "sent": "what?"}]))
    with pytest.raises(LayoutError, match=r"_qa.pkl: expected rows with image, question, answer, found img_id, sent"):
        path_vqa.converter(source).units()
