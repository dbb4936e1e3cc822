"""Adapters as part of a model: what gets one, what it computes, and what a quantised base costs and loses."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.extend.core import jaxprs_in_params

from configs.sizes import SIZES
from tests.train.toy import MODEL, toy_batch
from umit_jax.model.config import ModelConfig
from umit_jax.model.lora import Lora, LoraError, merge, plan, start, trainable
from umit_jax.model.param import abstract_params, bind, init_params, logical_axes
from umit_jax.model.quantize import Layout, dequantise, quantise

EVERYWHERE = Lora(3, 6.0, patterns=(".*",))


def with_lora(**changes):
    return dataclasses.replace(MODEL, lora=dataclasses.replace(EVERYWHERE, **changes))


def flat(tree):
    return flatten_dict(tree, sep="/")


@functools.cache
def base():
    return init_params(MODEL, jax.random.key(0))


BATCH = toy_batch(1, 2)
FAST = {"xla_backend_optimization_level": 0}  # to compile


def hidden(config, params):
    run = jax.jit(lambda params, batch: bind(config, params).hidden(batch), compiler_options=FAST)
    return np.asarray(run(params, BATCH))


def disturbed(params):
    """The same with every lora_b drawn at random, as after some training."""
    key = jax.random.key(5)
    values = {
        path: 0.2 * jax.random.normal(key, value.shape) if path.endswith("lora_b") else value
        for path, value in flat(params).items()
    }
    return unflatten_dict(values, sep="/")


def distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_every_linear_layer_can_have_an_adapter_and_a_new_one_changes_nothing():
    config = with_lora()
    params = start(config, base(), jax.random.key(1))
    kernels = {path for path in flat(base()) if path.endswith("/kernel")}
    adapted = {path.removesuffix("lora_a") + "kernel" for path in flat(params) if path.endswith("/lora_a")}
    assert adapted == kernels
    np.testing.assert_allclose(hidden(config, params), hidden(MODEL, base()), atol=1e-5)


def test_merged_weights_compute_what_the_adapters_do():
    config = with_lora(rslora=True)
    params = disturbed(start(config, base(), jax.random.key(1)))
    adapters = unflatten_dict(
        {p: v for p, v in flat(params).items() if p.split("/")[-1] in ("lora_a", "lora_b")}, sep="/"
    )
    merged = merge(config, base(), adapters)
    expected = hidden(config, params)
    assert flat(merged).keys() == flat(base()).keys()
    assert distance(hidden(MODEL, base()), expected) > 0.1
    np.testing.assert_allclose(hidden(MODEL, merged), expected, atol=2e-5 * np.abs(expected).max())


def test_shapes_and_axes_follow_the_kernel():
    axes, shapes = flat(logical_axes(with_lora())), flat(abstract_params(with_lora()))
    expected = {
        "decoder/layers/attn/q/lora_a": ((2, 32, 3), ("layers", "embed", None)),
        "decoder/layers/attn/q/lora_b": ((2, 3, 4, 8), ("layers", None, "heads", "head_dim")),
        "decoder/layers/attn/o/lora_a": ((2, 4, 8, 3), ("layers", "heads", "head_dim", None)),
        "vision/blocks/attn/qkv/lora_b": ((2, 3, 3, 2, 8), ("layers", None, None, "vision_heads", "head_dim")),
        "projector/fc2/lora_b": ((3, 32), (None, "embed")),
    }
    assert {path: (shapes[path].shape, axes[path]) for path in expected} == expected


def test_initial_values_are_those_of_peft():
    config = with_lora(rank=64)
    params = flat(start(config, base(), jax.random.key(1)))
    for path, fan_in in (("decoder/layers/mlp/down/lora_a", 48), ("decoder/layers/attn/o/lora_a", 32)):
        bound = math.sqrt(6 / ((1 + 5) * fan_in))  # Kaiming's uniform distribution with a = sqrt(5)
        values = np.asarray(params[path])
        assert np.abs(values).max() <= bound
        np.testing.assert_allclose(values.std(), bound / math.sqrt(3), rtol=0.05)
    assert not any(value.any() for path, value in params.items() if path.endswith("lora_b"))
    assert (params["decoder/layers/mlp/gate/lora_a"] != params["decoder/layers/mlp/up/lora_a"]).any()


def test_the_first_pattern_that_matches_a_kernel_gives_its_rank_and_alpha():
    lora = Lora(8, 16.0, patterns=((r"decoder/layers/attn/(q|v)/", 2, 4.0), "decoder/layers/attn", "vision/.*"))
    config = dataclasses.replace(MODEL, lora=lora)
    ranks = {path: (adapter.rank, adapter.scale) for path, adapter in plan(config).adapters.items()}
    assert ranks["decoder/layers/attn/v/kernel"] == (2, 2.0)
    assert ranks["decoder/layers/attn/k/kernel"] == (8, 2.0)
    assert "decoder/layers/mlp/up/kernel" not in ranks
    assert "vision/patch_embed/kernel" in ranks
    assert plan(dataclasses.replace(config, lora=dataclasses.replace(lora, rslora=True))).adapters[
        "decoder/layers/attn/v/kernel"
    ].scale == pytest.approx(4.0 / math.sqrt(2))


def test_what_trains_is_the_adapters_and_what_is_named():
    config = with_lora(patterns=("decoder/layers/attn/q",), full=("projector/.*", "vision/blocks/norm1"))
    own = {"decoder/layers/attn/q/lora_a", "decoder/layers/attn/q/lora_b"}
    own |= {"vision/blocks/norm1/scale", "vision/blocks/norm1/bias"}
    assert {path for path in trainable(config) if not path.startswith("projector/")} == own
    assert {"projector/fc1/kernel", "projector/norm/bias"} <= trainable(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rnk": 8}, "lora: unknown name rnk; the nearest known one is rank"),
        ({"quantize": "int3"}, "lora.quantize: expected none | int8 | nf4, found 'int3'"),
        ({"rank": -1}, "lora.patterns: 'decoder/layers/.*': expected a positive rank and alpha, found -1, 8.0"),
        (
            {"patterns": ("decoder/layers/attn/qq/kernel",)},
            "'decoder/layers/attn/qq/kernel': matches no kernel; the nearest is decoder/layers/attn/q/kernel",
        ),
        ({"patterns": ("decoder/embed",)}, "lora.patterns[0] 'decoder/embed': matches no kernel"),
        ({"patterns": ("decoder", "decoder/layers")}, "lora.patterns[1] 'decoder/layers': decides no kernel"),
        (
            {"patterns": (("decoder", 8),)},
            "expected a pattern or (pattern, rank, alpha), found ('decoder', 8)",
        ),
        ({"patterns": (("decoder", "8", 1.0),)}, "expected a positive rank and alpha, found 8, 1.0"),
        ({"patterns": ("decoder/(",)}, "lora.patterns[0] 'decoder/(': not a regular expression"),
        ({"full": ("projektor",)}, "lora.full[0] 'projektor': matches no parameter; the nearest is projector/"),
        ({"full": ("decoder/layers/mlp",)}, "both match decoder/layers/mlp/down/kernel: it trains whole or by"),
        ({"quantize": "nf4", "quantize_patterns": ("eyes",)}, "lora.quantize_patterns[0] 'eyes': matches no kernel"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(LoraError, match=re.escape(message)):
        plan(dataclasses.replace(MODEL, lora=Lora.from_config({"rank": 4, "alpha": 8.0, **settings})))


def test_rank_zero_is_off_and_settings_survive_json():
    assert Lora.from_config({"rank": 0, "alpha": 8.0}) is None
    lora = Lora(4, 8.0, patterns=("a", ("b", 2, 1.0)), full=("c",), quantize="int8")
    assert Lora.from_config(lora.to_json()) == lora


@pytest.mark.parametrize(("kind", "error", "bound"), [("int8", 0.008, 1 / 254), ("nf4", 0.1, 0.16)])
def test_quantised_kernels_come_back_within_their_step(kind, error, bound):
    kernel = jax.random.normal(jax.random.key(0), (2, 128, 2, 48)) * jnp.array([0.01, 3.0])[:, None, None, None]
    layout = Layout(1, 1)
    codes, scales = quantise(kernel, kind, layout)
    back = np.asarray(dequantise(codes, scales, kind, jnp.float32))
    assert scales.shape == ((2, 1, 2, 48) if kind == "int8" else (2, 2, 2, 48))
    for layer in range(2):
        assert distance(back[layer], np.asarray(kernel[layer])) < error
        worst = np.abs(kernel[layer]).max(axis=0)
        assert (np.abs(back[layer] - kernel[layer]) <= (bound + 0.004) * worst).all()  # 2**-8: a bfloat16 scale


@pytest.mark.parametrize(("kind", "error"), [("int8", 0.03), ("nf4", 0.3)])
def test_a_quantised_base_computes_nearly_the_same_in_fewer_bytes(kind, error):
    """The toy's width of 32 averages little of the rounding away; wider models are nearer (docs/lora.md)."""
    config = with_lora(quantize=kind, patterns=("decoder/layers",))
    params = start(config, base(), jax.random.key(1))
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), abstract_params(config))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == shapes
    found = distance(hidden(config, params), hidden(MODEL, base()))
    assert 1e-4 < found < error
    stored = {path: value for path, value in flat(params).items() if "/kernel_" in path}
    taken = jax.jit(lambda tree: tree, keep_unused=True).lower(stored).compile().memory_analysis()
    kernels = sum(flat(base())[path].size for path in plan(config).quantised)
    assert taken.argument_size_in_bytes / kernels == pytest.approx({"int8": 1.12, "nf4": 0.58}[kind], rel=0.1)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.parametrize("remat", ["none", "full"])
def test_gradients_through_a_quantised_base_are_those_of_its_float_values(kind, remat):
    quantised = with_lora(quantize=kind, quantize_patterns=("decoder/layers/mlp",))
    params = disturbed(start(quantised, base(), jax.random.key(1)))
    values = flat(params)
    floats = {path: value for path, value in values.items() if "/kernel_" not in path}
    for path in plan(quantised).quantised:
        floats[path] = dequantise(values[f"{path}_q"], values[f"{path}_scale"], kind, jnp.float32)

    def gradients(config, values):
        own = {path: value for path, value in values.items() if "/lora_" in path}
        rest = {path: value for path, value in values.items() if path not in own}

        def loss(own, rest, batch):
            return jnp.sum(bind(config, unflatten_dict({**rest, **own}, sep="/")).hidden(batch, remat=remat)[0, 3])

        return jax.jit(jax.grad(loss), compiler_options=FAST)(own, rest, BATCH)

    expected = gradients(with_lora(), floats)
    for path, found in gradients(quantised, values).items():
        scale = max(float(jnp.abs(expected[path]).max()), 1e-3)
        np.testing.assert_allclose(found, expected[path], atol=1e-4 * scale, err_msg=path)


def test_no_float_kernel_is_kept_for_the_backward_pass():
    """A derivative of x @ dequantised would keep the float kernels of all layers."""
    config = with_lora(quantize="nf4", patterns=("decoder/layers",))
    values = flat(abstract_params(config))
    own = {path: value for path, value in values.items() if "/lora_" in path}
    rest = {path: value for path, value in values.items() if path not in own}

    def loss(own, rest, batch):
        return jnp.sum(bind(config, unflatten_dict({**rest, **own}, sep="/")).hidden(batch))

    kept = stacked_outputs(jax.make_jaxpr(jax.grad(loss))(own, rest, BATCH).jaxpr)
    assert (2, 2, 32, 32) in kept  # the check sees what is kept: the input (rows, tokens, width) of every layer
    assert not kept & {(2, 32, 48), (2, 48, 32)}  # (layers, width, MLP)


def stacked_outputs(jaxpr):
    """Shapes of what the scans of a program put out: what is carried, and what is kept of every layer."""
    shapes = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            shapes |= {tuple(var.aval.shape) for var in equation.outvars}
        for inner in jaxprs_in_params(equation.params):
            shapes |= stacked_outputs(inner)
    return shapes


def test_memory_of_the_released_sizes():
    config = ModelConfig.from_dict(SIZES["7b"])
    lora = Lora(16, 32.0, quantize="nf4")

    def gigabytes(config, **kinds):
        shapes = flat(abstract_params(config))
        bits = {path: 4 if s.dtype == jnp.uint4 else 8 * s.dtype.itemsize for path, s in shapes.items()}
        bits |= {path: 16 for path, s in shapes.items() if s.dtype == jnp.float32 and "/kernel_" not in path}
        return sum(math.prod(shapes[path].shape) * bits[path] for path in shapes) / 8e9

    whole, small = gigabytes(config), gigabytes(dataclasses.replace(config, lora=lora))
    assert whole == pytest.approx(16.6, abs=0.1)
    assert small < 0.45 * whole
