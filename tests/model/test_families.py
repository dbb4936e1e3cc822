"""The registry of families: what is built, and how anything else is refused."""

import jax
import pytest

from configs.sizes import SIZES
from umit_jax.model import families
from umit_jax.model.config import ConfigError, ModelConfig
from umit_jax.model.param import abstract_params


@pytest.mark.parametrize("kind", ["llava", "", None, ["qwen2_vl"]])
def test_another_architecture_is_refused_naming_the_field_what_was_found_and_what_is_built(kind):
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_hf(ModelConfig.from_dict(SIZES["tiny"]).to_hf() | {"model_type": kind})
    assert str(error.value) == f"model config: model_type: expected {' | '.join(families.FAMILIES)}, found {kind!r}"


@pytest.mark.parametrize("size", SIZES)
def test_names_cover_every_parameter_of_the_family_once(size):
    config = ModelConfig.from_dict(SIZES[size], {"tied_head": False})
    paths = [entry.path for entry in families.of(config).names]
    leaves = jax.tree_util.tree_leaves_with_path(abstract_params(config))
    assert sorted(paths) == sorted("/".join(key.key for key in path) for path, _ in leaves)


def test_the_host_numbers_are_fields_of_the_processing():
    from data_pipelines.image import Processing

    for size in SIZES.values():
        config = ModelConfig.from_dict(size)
        assert Processing(**families.host_numbers(config)).boxes == families.of(config).boxes
