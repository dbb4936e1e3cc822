"""LoRA (arXiv 2106.09685): a frozen linear layer plus a trained low-rank branch, chosen by path pattern.

    y = x @ kernel + bias + scale * (x @ lora_a) @ lora_b         scale = alpha / rank, or alpha / sqrt(rank) (rsLoRA)

| parameter                | shape                           | axes                | initial values                |
| PATH/lora_a              | (layers, inputs ..., rank)      | the kernel's, None  | uniform, +-fan_in ** -0.5     |
| PATH/lora_b              | (layers, rank, outputs ...)     | None, the kernel's  | zeros                         |
| PATH/kernel_q, _scale    | codes and scales of a quantised kernel, in its place (model/quantize.py)             |

A ModelConfig with `lora` set describes such a model: param.py gives its shapes, axes and `bind` as for any other, and
no file of a model knows of it. qwix quantises the base, but its own LoraProvider is not used: it makes parameters
while the model runs, and ours run inside lax.scan over stacked layers, where what it makes is lost (and the random
state it adds to every module has no layers axis, so that the scan refuses); it finds a kernel by the identity of its
array, which the reshape to a matrix hides; and its parameters have no logical axes.
"""

import dataclasses
import difflib
import functools
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from umit_jax.model.config import ModelConfig
from umit_jax.model.param import Linear, Params, abstract_params, build
from umit_jax.model.quantize import TYPES, Layout, matmul, quantise, scale_axes

ADAPTER = ("lora_a", "lora_b")
Pattern = str | tuple[str, int, float]


class LoraError(ValueError):
    """A LoRA setting that cannot be used; the message names it."""


@dataclasses.dataclass(frozen=True)
class Lora:
    """patterns: regular expressions, or (expression, rank, alpha), over paths of kernels; the first that matches wins.
    full: over paths of parameters trained whole beside the adapters. quantize: none | int8 | nf4, what frozen kernels
    that quantize_patterns match are stored as. Expressions match from the start of a path, as optimizer.patterns do.
    """

    rank: int
    alpha: float
    rslora: bool = False
    patterns: tuple[Pattern, ...] = ("decoder/layers/.*",)
    full: tuple[str, ...] = ()
    quantize: str = "none"
    quantize_patterns: tuple[str, ...] = ("decoder/layers/.*",)

    def __post_init__(self) -> None:
        for pattern in self.patterns:
            if not isinstance(pattern, str) and not (isinstance(pattern, tuple) and len(pattern) == 3):
                raise LoraError(f"lora.patterns: expected a pattern or (pattern, rank, alpha), found {pattern!r}")
            rank, alpha = (self.rank, self.alpha) if isinstance(pattern, str) else pattern[1:]
            if not (type(rank) is int and rank > 0 and isinstance(alpha, int | float) and alpha > 0):
                raise LoraError(
                    f"lora.patterns: {pattern!r}: expected a positive rank and alpha, found {rank}, {alpha}"
                )
        if not self.patterns:
            raise LoraError("lora.patterns: expected at least one pattern")
        if self.quantize not in ("none", *TYPES):
            raise LoraError(f"lora.quantize: expected none | {' | '.join(TYPES)}, found {self.quantize!r}")

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> "Lora | None":
        """From config.lora or to_json(); None where rank is 0."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
                raise LoraError(f"lora: unknown name {name}; the nearest known one is {near}")
        if not values.get("rank"):
            return None
        fields = {name: _tuples(value) for name, value in values.items()}
        for name in ("patterns", "full", "quantize_patterns"):
            if isinstance(fields.get(name), str):
                fields[name] = (fields[name],)
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


class Adapter(NamedTuple):
    """The low-rank branch of one kernel."""

    rank: int
    alpha: float
    scale: float
    layout: Layout


class Plan(NamedTuple):
    """What `lora` means for one model, by path of the base's parameters."""

    adapters: dict[str, Adapter]  # of kernels
    full: frozenset[str]  # trained whole
    quantised: dict[str, Layout]  # kernels


@functools.lru_cache(maxsize=16)
def plan(config: ModelConfig) -> Plan:
    """Raises LoraError for a pattern that decides nothing, or a kernel that is to be trained in both ways."""
    lora = config.lora
    assert lora is not None
    base = _flat(abstract_params(dataclasses.replace(config, lora=None)))
    layouts = {path: _layout(linear) for path, _, _, linear in _linears(build(config))}
    chosen: dict[str, Adapter] = {}
    for i, pattern in enumerate(lora.patterns):
        text, rank, alpha = (pattern, lora.rank, lora.alpha) if isinstance(pattern, str) else pattern
        new = [path for path in _matches(f"lora.patterns[{i}]", text, layouts, "kernel") if path not in chosen]
        if not new:
            raise LoraError(f"lora.patterns[{i}] {text!r}: decides no kernel: earlier patterns match the same ones")
        scale = alpha / (math.sqrt(rank) if lora.rslora else rank)
        chosen |= {path: Adapter(rank, float(alpha), scale, layouts[path]) for path in new}
    full: set[str] = set()
    for i, text in enumerate(lora.full):
        full.update(_matches(f"lora.full[{i}]", text, base, "parameter"))
    for path in sorted(full & chosen.keys()):
        raise LoraError(f"lora.full and lora.patterns both match {path}: it trains whole or by an adapter")
    quantised: set[str] = set()
    for i, text in enumerate(lora.quantize_patterns if lora.quantize != "none" else ()):
        quantised.update(_matches(f"lora.quantize_patterns[{i}]", text, layouts, "kernel"))
    return Plan(chosen, frozenset(full), {path: layouts[path] for path in sorted(quantised - full)})


def _matches(name: str, text: str, paths: Iterable[str], what: str) -> list[str]:
    paths = list(paths)
    try:
        found = [path for path in paths if re.match(text, path)]
    except re.error as error:
        raise LoraError(f"{name} {text!r}: not a regular expression: {error}") from error
    if not found:
        near = difflib.get_close_matches(text, paths, n=1, cutoff=0)[0]
        raise LoraError(f"{name} {text!r}: matches no {what}; the nearest is {near}")
    return found


def trainable(config: ModelConfig) -> frozenset[str]:
    """Paths of what a LoRA run trains: adapters, and what lora.full names."""
    decided = plan(config)
    stems = [path.removesuffix("kernel") for path in decided.adapters]
    return decided.full | {f"{stem}{name}" for stem in stems for name in ADAPTER}


def is_adapter(path: str) -> bool:
    return path.endswith(("/lora_a", "/lora_b"))


def is_quantised(path: str) -> bool:
    """Codes and scales, whose dtype is their own."""
    return path.endswith(("/kernel_q", "/kernel_scale"))


class AdaptedLinear(Linear):
    """A Linear with a low-rank branch, a quantised kernel, or both."""

    def __init__(self, base: Linear, adapter: Adapter | None, quantised: str | None):
        layout = _layout(base)
        self.inputs, self.outputs, self.whole, self.bias = base.inputs, base.outputs, base.whole, base.bias
        self.quantised, self.scale = quantised, adapter.scale if adapter else 0.0
        kernel, axes = base.kernel.get_value(), base.kernel.get_metadata()["logical_axes"]
        if quantised is None:
            self.kernel = base.kernel
        else:
            codes, scales = jax.eval_shape(lambda k: quantise(k, quantised, layout), kernel)
            self.kernel_q = _parameter(codes.shape, codes.dtype, axes)
            self.kernel_scale = _parameter(scales.shape, scales.dtype, scale_axes(axes, kernel.shape, scales.shape))
        if adapter is not None:
            split, rank = layout.layers + layout.inputs, adapter.rank
            shape_b = (*kernel.shape[: layout.layers], rank, *kernel.shape[split:])
            axes_b = (*axes[: layout.layers], None, *axes[split:])
            self.lora_a = _parameter((*kernel.shape[:split], rank), jnp.float32, (*axes[:split], None))
            self.lora_b = _parameter(shape_b, jnp.float32, axes_b)

    def product(self, x_TI: jax.Array) -> jax.Array:
        if self.quantised is None:
            y_TO = super().product(x_TI)
        else:
            codes, scales = self.kernel_q.get_value(), self.kernel_scale.get_value()
            y_TO = self.columns(matmul(x_TI, codes, scales, self.quantised, self.inputs))
        if not self.scale:
            return y_TO
        a, b = self.lora_a.get_value().astype(x_TI.dtype), self.lora_b.get_value().astype(x_TI.dtype)
        rank = b.shape[0]
        return y_TO + (x_TI @ a.reshape(-1, rank)) @ self.columns(b) * self.scale


def adapt(model: nnx.Module, config: ModelConfig) -> nnx.Module:
    """The abstract model with its linear layers replaced as config.lora says."""
    assert config.lora is not None
    decided = plan(config)
    for path, parent, name, linear in list(_linears(model)):
        quantised = config.lora.quantize if path in decided.quantised else None
        adapter = decided.adapters.get(path)
        if adapter is not None or quantised is not None:
            setattr(parent, name, AdaptedLinear(linear, adapter, quantised))
    return model


def start_adapter(path: str, shape: Sequence[int], layout: Layout, key: jax.Array) -> jax.Array:
    """Initial values of a lora_a or lora_b, float32: PEFT's, so that a new adapter changes nothing.

    A is uniform within +-fan_in ** -0.5 (Kaiming's distribution with a = sqrt(5)) and depends on key and path only.
    """
    if path.endswith("/lora_b"):
        return jnp.zeros(shape, jnp.float32)
    bound = math.prod(shape[layout.layers : layout.layers + layout.inputs]) ** -0.5
    return jax.random.uniform(
        jax.random.fold_in(key, zlib.crc32(path.encode())), shape, jnp.float32, minval=-bound, maxval=bound
    )


def start(config: ModelConfig, base: Params, key: jax.Array) -> Params:
    """The parameters of an adapted model from those of its base, with new adapters."""
    assert config.lora is not None
    decided, flat = plan(config), _flat(base)
    for path, layout in decided.quantised.items():
        codes, scales = quantise(flat.pop(path), config.lora.quantize, layout)
        flat |= {f"{path}_q": codes, f"{path}_scale": scales}
    shapes = _flat(abstract_params(config))
    for path, adapter in decided.adapters.items():
        for name in ADAPTER:
            own = path.removesuffix("kernel") + name
            flat[own] = start_adapter(own, shapes[own].shape, adapter.layout, key)
    return _nested(flat)


def merge_kernel(kernel: Any, lora_a: Any, lora_b: Any, adapter: Adapter) -> jax.Array:
    """kernel + scale * lora_a @ lora_b in float32, then in the kernel's dtype. All three have, or all three lack, the
    layers axis of a stacked layer; layers are merged one after the other, so that one is in float32 at a time."""

    def one(layer: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        kernel, a, b = layer
        delta = jnp.tensordot(a.astype(jnp.float32), b.astype(jnp.float32), 1, precision=jax.lax.Precision.HIGHEST)
        return (kernel.astype(jnp.float32) + adapter.scale * delta).astype(kernel.dtype)

    stacked = lora_a.ndim > adapter.layout.inputs + 1
    layers = jnp.asarray(kernel), jnp.asarray(lora_a), jnp.asarray(lora_b)
    return jax.lax.map(one, layers) if stacked else one(layers)


def merge(config: ModelConfig, base: Params, trained: Params) -> Params:
    """The base's parameters with the trained ones, adapters merged, in their place: those of a model without LoRA."""
    flat, own = _flat(base), _flat(trained)
    for path, adapter in plan(config).adapters.items():
        stem = path.removesuffix("kernel")
        flat[path] = merge_kernel(flat[path], own[f"{stem}lora_a"], own[f"{stem}lora_b"], adapter)
    whole = {path: value.astype(flat[path].dtype) for path, value in own.items() if not is_adapter(path)}
    return _nested(flat | whole)


def _linears(model: nnx.Module) -> Iterator[tuple[str, nnx.Module, str, Linear]]:
    """(path of the kernel, module that holds the layer, its name there, the layer) of every linear layer."""
    for path, module in nnx.iter_modules(model):
        for name, child in vars(module).items():
            if isinstance(child, Linear):
                yield "/".join(map(str, (*path, name, "kernel"))), module, name, child


def _flat(tree: Params) -> dict[str, Any]:
    return flatten_dict(tree, sep="/")


def _nested(flat: dict[str, Any]) -> Params:
    return unflatten_dict(flat, sep="/")


def _layout(linear: Linear) -> Layout:
    return Layout(int(linear.kernel.get_metadata()["logical_axes"][0] == "layers"), linear.inputs)


def _parameter(shape: tuple[int, ...], dtype: Any, axes: tuple[str | None, ...]) -> nnx.Param:
    return nnx.Param(jax.ShapeDtypeStruct(shape, dtype), logical_axes=axes)  # type: ignore[arg-type]
