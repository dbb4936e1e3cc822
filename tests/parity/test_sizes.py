"""The full-size configurations have the parameters of the published models."""

import math

import jax
import pytest

from configs.sizes import SIZES
from umit_jax.convert.keymap import tensors
from umit_jax.model import families
from umit_jax.model.config import ModelConfig
from umit_jax.model.param import abstract_params

PUBLISHED = {
    "2b": 2_208_985_600,
    "7b": 8_291_375_616,
    "72b": 73_405_560_320,
    "qwen2.5-3b": 3_754_622_976,
    "qwen2.5-7b": 8_292_166_656,
    "qwen2.5-72b": 73_410_777_344,
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_number_of_parameters_is_the_published_one(size):
    params = abstract_params(ModelConfig.from_dict(SIZES[size]))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == PUBLISHED[size]


@pytest.mark.parametrize("size", SIZES)
def test_names_and_shapes_are_those_of_transformers(size):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from umit_jax.convert.keymap import hub_name

    config = ModelConfig.from_dict(SIZES[size])
    with torch.device("meta"):
        hf = transformers.AutoConfig.for_model(**config.to_hf())
        model = transformers.AutoModelForImageTextToText.from_config(hf)
    assert type(model).__name__ == families.of(config).architecture
    theirs = {hub_name(name): tuple(param.shape) for name, param in model.named_parameters()}
    assert {tensor.name: tensor.shape for tensor in tensors(config)} == theirs
