"""Which min_pixels and max_pixels count, in whichever file and spelling: as transformers' own loading decides."""

import json

import pytest

from configs.sizes import SIZES
from data_pipelines.image import smart_resize
from umit_jax.convert.from_hf import read_pixels
from umit_jax.convert.processor import check_pixels, pixel_limits
from umit_jax.convert.tensorfile import CheckpointError
from umit_jax.model.config import ModelConfig

EDGES = {"shortest_edge": 784 * 2, "longest_edge": 784 * 20}
TOP = {"min_pixels": 784 * 5, "max_pixels": 784 * 12}
OTHER = {"min_pixels": 784, "max_pixels": 784 * 3}
FILE, NESTED, VIDEO = "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"
CASES = {
    "at the top": {FILE: TOP},
    "in size": {FILE: {"size": EDGES}},
    "both: the top wins": {FILE: {"size": EDGES, **TOP}},
    "one of each": {FILE: {"size": EDGES, "max_pixels": 784 * 7}},
    "null at the top": {FILE: {"size": EDGES, "min_pixels": None, "max_pixels": None}},
    "old size, top": {FILE: {"size": {"min_pixels": 1, "max_pixels": 2}, **TOP}},
    "one alone": {FILE: {"max_pixels": 784 * 9}},
    "neither": {FILE: {}},
    "nested": {NESTED: {"image_processor": TOP}},
    "nested wins": {NESTED: {"image_processor": TOP}, FILE: OTHER},
    "nested without": {NESTED: {"processor_class": "Qwen2VLProcessor"}, FILE: OTHER},
    "videos have their own": {FILE: TOP, VIDEO: OTHER},
}


def write(directory, files) -> None:
    for name, values in files.items():
        (directory / name).write_text(json.dumps(values))


@pytest.mark.parametrize("case", CASES)
def test_the_limits_of_images_are_those_that_transformers_loads(tmp_path, case):
    pytest.importorskip("torch")
    module = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    write(tmp_path, CASES[case])
    size = module.Qwen2VLImageProcessorPil.from_pretrained(tmp_path).size
    low, high = pixel_limits(read_pixels(tmp_path))
    assert (low, high) == (size["shortest_edge"], size["longest_edge"])
    for h, w in ((1000, 700), (30, 40), (100, 100)):
        assert smart_resize(h, w, low, high) == module.smart_resize(h, w, 28, low, high)


@pytest.mark.parametrize("case", CASES)
def test_videos_have_the_limits_of_images_unless_a_file_has_theirs(tmp_path, case):
    write(tmp_path, CASES[case])
    expected = OTHER if VIDEO in CASES[case] else read_pixels(tmp_path)
    assert pixel_limits(read_pixels(tmp_path, video=True)) == pixel_limits(expected)


def test_nested_settings_of_videos_win(tmp_path):
    write(tmp_path, {NESTED: {"image_processor": TOP, "video_processor": {"size": EDGES}}, VIDEO: OTHER})
    assert pixel_limits(read_pixels(tmp_path, video=True)) == tuple(EDGES.values())


def test_the_first_spelling_of_size_is_read():
    assert pixel_limits({"size": OTHER}) == tuple(OTHER.values())


@pytest.mark.parametrize(
    "pixels",
    [
        {"size": {"shortest_edge": 784}},
        {"size": {"height": 28, "width": 28}},
        {"size": 224},
        {"min_pixels": 0},
        {"max_pixels": "many"},
    ],
)
def test_limits_that_are_none_are_refused(pixels):
    with pytest.raises(CheckpointError, match=r"here: min_pixels and max_pixels: expected 0 < min <= max"):
        check_pixels(ModelConfig.from_dict(SIZES["tiny"]), pixels, "here")
