import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import PartitionSpec

from tests.train.toy import FROZEN_TOWER, MODEL, toy_config
from umit_jax.model.lora import Lora, trainable
from umit_jax.model.param import abstract_params
from umit_jax.parallel.mesh import make_mesh
from umit_jax.train import optimizer as optimizers
from umit_jax.train.state import abstract_state, create, merge, split

PATHS = flatten_dict(abstract_params(MODEL), sep="/").keys()


def build(axes, patterns=FROZEN_TOWER, dtype=jnp.bfloat16):
    config = toy_config().optimizer
    trained, frozen = optimizers.multipliers(PATHS, patterns)
    optimizer = optimizers.adamw(config, optimizers.schedule(config, 6), trained)
    return abstract_state(MODEL, make_mesh(axes), optimizer, frozen, dtype), optimizer


def test_split_and_merge_are_inverse():
    params = abstract_params(MODEL)
    trained, frozen = split(params, {path for path in PATHS if path.startswith("vision/")})
    assert set(trained) == {"projector", "decoder"}
    assert set(frozen) == {"vision"}
    assert merge(trained, frozen) == params


def test_frozen_parameters_have_no_optimizer_state_and_no_float32_copy():
    abstract, _ = build({"fsdp": -1})
    frozen = flatten_dict(abstract.frozen, sep="/")
    assert set(frozen) == {path for path in PATHS if path.startswith("vision/")}
    assert {leaf.dtype for leaf in frozen.values()} == {jnp.dtype(jnp.bfloat16)}
    trained = sum(leaf.size for leaf in jax.tree.leaves(abstract.params))
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract.opt)) == 2 * trained + 2  # moments and two counters


def test_state_is_created_as_described_and_does_not_depend_on_the_mesh():
    states = []
    for axes in ({"fsdp": -1}, {"data": 2, "fsdp": 2, "tensor": 2}):
        abstract, optimizer = build(axes)
        state = create(MODEL, abstract, optimizer, seed=1)
        for like, leaf in zip(jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True):
            assert (leaf.shape, leaf.dtype, leaf.sharding) == (like.shape, like.dtype, like.sharding)
        states.append(state)
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_moments_are_sharded_like_their_parameters():
    abstract, _ = build({"data": 2, "fsdp": 2, "tensor": 2})
    kernel = abstract.params["decoder"]["layers"]["mlp"]["up"]["kernel"].sharding
    assert abstract.opt[1].mu["decoder"]["layers"]["mlp"]["up"]["kernel"].sharding == kernel
    assert kernel.spec == PartitionSpec(None, ("fsdp", "context"), "tensor")


def test_loaded_parameters_are_taken_as_they_are_and_asked_for_in_place():
    abstract, optimizer = build({"fsdp": -1})
    asked, given = {}, create(MODEL, *build({"fsdp": -1}, patterns=()), seed=7).params

    def load(shardings):
        asked.update(flatten_dict(shardings, sep="/"))
        return jax.device_put(jax.tree.map(np.asarray, given), shardings)

    state = create(MODEL, abstract, optimizer, seed=0, load=load)
    assert asked.keys() == PATHS
    expected = flatten_dict(given, sep="/")
    for path, leaf in flatten_dict(merge(state.params, state.frozen), sep="/").items():
        np.testing.assert_array_equal(leaf, expected[path].astype(leaf.dtype), err_msg=path)


def test_a_lora_run_keeps_moments_for_what_trains_only():
    config = dataclasses.replace(MODEL, lora=Lora(2, 4.0, full=("projector/.*",), quantize="nf4"))
    paths = flatten_dict(abstract_params(config), sep="/").keys()
    patterns = ((".*lora_b", 16.0), ("projector/.*", 0.1), (".*", 1.0))
    trained, frozen = optimizers.multipliers(paths, patterns, trainable(config))
    assert trained.keys() == trainable(config) == paths - frozen
    assert trained["decoder/layers/attn/q/lora_b"] == 16.0
    assert trained["decoder/layers/attn/q/lora_a"] == 1.0
    assert trained["projector/fc1/kernel"] == 0.1
    optimizer = optimizers.adamw(toy_config().optimizer, optimizers.schedule(toy_config().optimizer, 6), trained)
    abstract = abstract_state(config, make_mesh({"fsdp": -1}), optimizer, frozen, jnp.bfloat16)
    kept = flatten_dict(abstract.frozen, sep="/")
    assert kept["decoder/embed/embedding"].dtype == jnp.bfloat16
    assert kept["decoder/layers/mlp/up/kernel_q"].dtype == jnp.uint4
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract.params))
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract.opt)) == 2 * count + 2  # moments and two counters
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract.params)} == {jnp.dtype(jnp.float32)}
