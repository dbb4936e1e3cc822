"""Parameters as plain nested dicts, and every Flax NNX mechanism the model uses.

Modules are built without arrays: each parameter is an nnx.Param around a ShapeDtypeStruct that also carries its
logical axes and its initial distribution. From that one description come the abstract tree, the axis names and the
initial values; `bind` puts arrays back in place (nnx.merge). Layers of one kind are one module whose parameters have
a leading "layers" axis, and `scan_layers` runs them with lax.scan.

Logical axes: layers, vocab, embed, mlp, heads, kv_heads, head_dim (decoder); patch, vision_embed, vision_mlp,
vision_heads, head_dim (vision tower and projector); None for axes that are never sharded.
"""

import dataclasses
import functools
import math
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from umit_jax.model.config import ModelConfig

Axes = tuple[str | None, ...]
Params = dict[str, Any]
Layer = TypeVar("Layer", bound=nnx.Module)
Carry = TypeVar("Carry")

_policies = jax.checkpoint_policies
REMAT = {
    "none": None,  # keep everything
    "dots": _policies.save_from_both_policies(  # keep the outputs of linear layers and of attention
        _policies.dots_with_no_batch_dims_saveable, _policies.save_only_these_names("attention")
    ),
    "attention": _policies.save_only_these_names("attention"),  # keep the outputs of attention and each layer's input
    "full": _policies.nothing_saveable,  # keep the input of each layer
}


class Place(NamedTuple):
    """Lays activations (rows, sequence, width) over devices, whose values stay: `between` layers, where they are kept,
    and `inside` them, where every token meets the weights. lookup: (table_VD, tokens_BS, dtype) -> table_VD[tokens_BS]
    in that dtype."""

    between: Callable[[jax.Array], jax.Array]
    inside: Callable[[jax.Array], jax.Array]
    lookup: Callable[[jax.Array, jax.Array, jnp.dtype], jax.Array]


# leaves it to the compiler
ANYWHERE = Place(lambda x: x, lambda x: x, lambda table, tokens, dtype: table[tokens].astype(dtype))


def normal(shape: tuple[int, ...], axes: Axes, std: float) -> nnx.Param:
    """A parameter drawn from a normal distribution around 0."""
    return _param(shape, axes, 0.0, std)


def zeros(shape: tuple[int, ...], axes: Axes) -> nnx.Param:
    return _param(shape, axes, 0.0, 0.0)


def ones(shape: tuple[int, ...], axes: Axes) -> nnx.Param:
    return _param(shape, axes, 1.0, 0.0)


def _param(shape: tuple[int, ...], axes: Axes, mean: float, std: float) -> nnx.Param:
    assert len(shape) == len(axes), (shape, axes)
    return nnx.Param(jax.ShapeDtypeStruct(shape, jnp.float32), logical_axes=axes, mean=mean, std=std)  # type: ignore[arg-type]


class Linear(nnx.Module):
    """x @ kernel + bias over one or more input and output axes.

    kernel has the input axes first; it is applied as one (tokens, in) x (in, out) matmul, which XLA:CPU runs faster
    than the same product with a batch axis. In it an output axis that may be sharded comes before those that never are
    ("_" names them): as one axis with these before it, each device would have to have all of it. The initial standard
    deviation is fan_in ** -0.5, of a bias bias_std.
    """

    turned = False  # whether the kernel lies as (out, in)

    def __init__(
        self,
        d_in: dict[str, int],
        d_out: dict[str, int],
        *,
        bias: bool,
        std: float | None = None,
        bias_std: float = 0.0,
    ):
        shape, axes = (*d_in.values(), *d_out.values()), (*_names(d_in), *_names(d_out))
        self.kernel = normal(shape, axes, math.prod(d_in.values()) ** -0.5 if std is None else std)
        self.bias = normal(tuple(d_out.values()), _names(d_out), bias_std) if bias else None
        self.inputs, self.outputs = len(d_in), tuple(d_out.values())
        self.whole = sum(name.startswith("_") for name in d_out)  # leading output axes that are never sharded

    def __call__(self, x: jax.Array) -> jax.Array:
        """x (..., in) -> (..., out) in the dtype of x."""
        lead = x.shape[: x.ndim - self.inputs]
        y = self.product(x.reshape(math.prod(lead), -1))
        if self.bias is not None:
            y = y + self.columns(self.bias.get_value()).astype(x.dtype)
        first = self.outputs[self.whole]
        y = y.reshape(*lead, first, *self.outputs[: self.whole], *self.outputs[self.whole + 1 :])
        return jnp.moveaxis(y, len(lead), len(lead) + self.whole)

    def product(self, x_TI: jax.Array) -> jax.Array:
        """x_TI @ kernel, all input axes as one, output axes as columns() has them."""
        if self.turned:
            y_OT = jnp.einsum("oi,ti->ot", self.kernel.get_value().astype(x_TI.dtype), x_TI)
            return jax.lax.optimization_barrier(y_OT).T  # or XLA makes it the product it was
        return x_TI @ self.columns(self.kernel.get_value()).astype(x_TI.dtype)

    def turn(self) -> None:
        """From now on the kernel is a matrix (out, in), without logical axes, which is read in order where it meets few
        tokens: on a CPU 24 of them then take three quarters of the time, and one no longer."""
        self.kernel.set_value(self.columns(self.kernel.get_value()).T)
        self.turned = True

    def columns(self, x: jax.Array) -> jax.Array:
        """(..., outputs) -> (rows, O), the first output axis that may be sharded before those that never are."""
        x = jnp.moveaxis(x.reshape(-1, *self.outputs), 1 + self.whole, 1)
        return x.reshape(x.shape[0], -1)


def _names(axes: dict[str, int]) -> Axes:
    """Axis names of a Linear; a name starting with "_" is an axis that is never sharded."""
    return tuple(None if name.startswith("_") else name for name in axes)


def stack(layers: int, layer: Layer) -> Layer:
    """The same module with a leading "layers" axis on every parameter."""
    graph, state = nnx.split(layer)
    flat = []
    for path, leaf in nnx.to_flat_state(state):
        shape = jax.ShapeDtypeStruct((layers, *leaf.get_value().shape), leaf.get_value().dtype)
        flat.append((path, leaf.replace(shape, logical_axes=("layers", *leaf.get_metadata()["logical_axes"]))))
    return nnx.merge(graph, nnx.from_flat_state(flat))


def scan_layers(
    body: Callable[[Layer, Carry], tuple[Carry, Any]], layers: Layer, x: Carry, remat: str
) -> tuple[Carry, Any]:
    """Runs `body(layer, x) -> x, y` through stacked layers; returns the last x (any pytree) and the stacked y.

    remat names what the backward pass keeps of each layer (REMAT).
    """
    if remat not in REMAT:
        raise ValueError(f"remat: expected {' | '.join(REMAT)}, found {remat!r}")
    graph, state = nnx.split(layers)

    def step(x: Carry, params: Params) -> tuple[Carry, Any]:
        return body(nnx.merge(graph, params), x)

    if REMAT[remat] is not None:
        step = jax.checkpoint(step, policy=REMAT[remat], prevent_cse=False)
    with jax.named_scope("layers"):  # a program is read by these names (aot/hlo.py)
        return jax.lax.scan(step, x, nnx.to_pure_dict(state))


def layer_list(layers: Layer, *, few_tokens: bool = False) -> list[Layer]:
    """Stacked layers as single ones, for decoding, where each layer has its own cache.

    Faster than a loop over stacked caches, which copies a layer's cache to read it; the price, on a CPU, is a copy of
    the layers' weights wherever this is called (XLA:CPU materialises the slices). few_tokens: they are to meet a few
    tokens many times (Linear.turn).
    """
    graph, state = nnx.split(layers)
    params = nnx.to_pure_dict(state)
    count = jax.tree.leaves(params)[0].shape[0]
    apart = [nnx.merge(graph, jax.tree.map(lambda p, i=i: p[i], params)) for i in range(count)]
    if few_tokens:
        for layer in apart:
            for _, module in nnx.iter_modules(layer):
                if type(module) is Linear:  # adapters and quantised kernels have products of their own
                    module.turn()
    return apart


def build(config: ModelConfig) -> nnx.Module:
    """The model without arrays and without what config.lora adds."""
    from umit_jax.model import families  # the models are built from the pieces above

    return families.of(config).module(config)


@functools.lru_cache(maxsize=16)
def _split(config: ModelConfig) -> tuple[Any, Any]:
    from umit_jax.model.lora import adapt

    return nnx.split(build(config) if config.lora is None else adapt(build(config), config))


def _map(config: ModelConfig, make: Callable[[tuple[str, ...], Any], Any]) -> Params:
    flat = {path: make(path, leaf) for path, leaf in nnx.to_flat_state(_split(config)[1])}
    tree: Params = {}
    for path, value in flat.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    return tree


def abstract_params(config: ModelConfig) -> Params:
    """Nested dict of ShapeDtypeStruct, float32 but for quantised kernels; groups vision, projector, decoder."""
    return _map(config, lambda _, leaf: leaf.get_value())


def logical_axes(config: ModelConfig) -> Params:
    """The same tree with a tuple of logical axis names per parameter, one per dimension."""
    return _map(config, lambda _, leaf: leaf.get_metadata()["logical_axes"])


def init_params(config: ModelConfig, key: jax.Array) -> Params:
    """Random float32 parameters. Each depends on the key and its own path only."""
    if config.lora is not None:
        from umit_jax.model.lora import start

        return start(config, init_params(dataclasses.replace(config, lora=None), key), key)

    def make(path: tuple[str, ...], leaf: Any) -> jax.Array:
        meta, value = leaf.get_metadata(), leaf.get_value()
        if not meta["std"]:
            return jnp.full(value.shape, meta["mean"], value.dtype)
        leaf_key = jax.random.fold_in(key, zlib.crc32("/".join(path).encode()))
        return meta["mean"] + meta["std"] * jax.random.normal(leaf_key, value.shape, value.dtype)

    return _map(config, make)


def bind(config: ModelConfig, params: Params) -> Any:
    """The model with these parameters (arrays or tracers), ready to call: of its family's class, say
    umit_jax.model.qwen2_vl.Qwen2VL."""
    return nnx.merge(_split(config)[0], params)
