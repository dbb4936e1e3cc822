"""Frozen kernels in few bits, with qwix: quantised once, put back into the compute dtype where they are multiplied.

| name | codes                       | scales                                  | bytes a weight |
| int8 | int8, -127..127             | float32, one an output column           | 1.0            |
| nf4  | uint4, 16 normal quantiles  | bfloat16, one a block of 64 inputs      | 0.53           |

NF4 is the data type of QLoRA (arXiv 2305.14314), without its second quantisation of the scales. XLA packs two uint4
into a byte. A block is the largest divisor, up to 64, of the kernel's last input axis.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import qwix

TYPES = ("int8", "nf4")
BLOCK = 64

Axes = tuple[str | None, ...]


class Layout(NamedTuple):
    """Which axes of a kernel are what: `layers` (0 or 1) leading ones, then `inputs` input axes, then outputs."""

    layers: int
    inputs: int


def quantise(kernel: jax.Array, kind: str, layout: Layout) -> tuple[jax.Array, jax.Array]:
    """(codes, scales) of a floating-point kernel; scales have the kernel's rank. Stacked layers come one by one, so
    that one is in float32 at a time."""
    if layout.layers:
        return jax.lax.map(lambda layer: quantise(layer, kind, Layout(0, layout.inputs)), kernel)
    dtypes = {"int8": jnp.float32, "nf4": jnp.bfloat16}
    last = layout.inputs - 1
    tiled = {} if kind == "int8" else {last: _block(kernel.shape[last])}
    reduced = range(layout.inputs) if kind == "int8" else tiled
    channels = [axis for axis in range(kernel.ndim) if axis not in reduced]
    kernel = kernel.astype(jnp.float32)
    array = qwix.quantize(kernel, _qtype(kind), channelwise_axes=channels, tiled_axes=tiled, scale_dtype=dtypes[kind])
    return array.qvalue, array.scale


def dequantise(codes: jax.Array, scales: jax.Array, kind: str, dtype: Any) -> jax.Array:
    """The kernel again, in `dtype`."""
    return qwix.dequantize(qwix.QArray(codes, scales.astype(dtype), None, _qtype(kind)))


def scale_axes(axes: Axes, shape: tuple[int, ...], scale_shape: tuple[int, ...]) -> Axes:
    """Logical axes of the scales of a kernel: those of the kernel where there is one scale an index."""
    return tuple(name if size == scales else None for name, size, scales in zip(axes, shape, scale_shape, strict=True))


def _product(x_TI: jax.Array, codes: jax.Array, scales: jax.Array, kind: str, inputs: int) -> jax.Array:
    """x_TI @ the kernel, flattened to (I, O), in the dtype of x_TI; one layer's codes and scales.

    The backward pass dequantises again: the derivative of an ordinary product would keep every layer's float kernel.
    """
    return x_TI @ _matrix(codes, scales, kind, inputs, x_TI.dtype)


def _forward(x_TI: jax.Array, codes: jax.Array, scales: jax.Array, kind: str, inputs: int) -> tuple[jax.Array, Any]:
    return _product(x_TI, codes, scales, kind, inputs), (codes, scales)


def _backward(kind: str, inputs: int, kept: Any, grad_TO: jax.Array) -> tuple[Any, ...]:
    codes, scales = kept
    grad_TI = grad_TO @ _matrix(codes, scales, kind, inputs, grad_TO.dtype).T
    return grad_TI, np.zeros(codes.shape, jax.dtypes.float0), jnp.zeros_like(scales)  # a base is frozen


matmul = jax.custom_vjp(_product, nondiff_argnums=(3, 4))
matmul.defvjp(_forward, _backward)


def _matrix(codes: jax.Array, scales: jax.Array, kind: str, inputs: int, dtype: Any) -> jax.Array:
    return dequantise(codes, scales, kind, dtype).reshape(math.prod(codes.shape[:inputs]), -1)


def _qtype(kind: str) -> Any:
    return jnp.int8 if kind == "int8" else kind


def _block(size: int) -> int:
    return max(divisor for divisor in range(1, BLOCK + 1) if size % divisor == 0)
