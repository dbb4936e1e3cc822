"""Norms, activations and MLPs. Norms compute in float32 whatever dtype flows around them."""

import jax
import jax.numpy as jnp
from flax import nnx

from umit_jax.model.param import Linear, ones, zeros

# Initial standard deviation of the biases of queries and keys. A rotated bias makes attention prefer certain distances,
# so that a model trained from scratch sees where things are from its first step; with zeros a tiny model needs
# thousands of steps to find that out (docs/log.md).
POSITION_BIAS = 1.0


class RMSNorm(nnx.Module):
    def __init__(self, width: int, eps: float):
        self.scale = ones((width,), (None,))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        return (x32 * self.scale.get_value()).astype(x.dtype)


class LayerNorm(nnx.Module):
    def __init__(self, width: int, eps: float = 1e-6):
        self.scale = ones((width,), (None,))
        self.bias = zeros((width,), (None,))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        return (x32 * self.scale.get_value() + self.bias.get_value()).astype(x.dtype)


def quick_gelu(x: jax.Array) -> jax.Array:
    """x * sigmoid(1.702 x), the activation CLIP was trained with and Qwen2-VL's vision blocks keep."""
    return x * jax.nn.sigmoid(1.702 * x)


class GatedMLP(nnx.Module):
    """down(silu(gate(x)) * up(x)). prefix: of the names of its logical axes, embed and mlp."""

    def __init__(self, width: int, hidden: int, out_std: float, *, prefix: str = "", bias: bool = False):
        outer, inner = {f"{prefix}embed": width}, {f"{prefix}mlp": hidden}
        self.gate = Linear(outer, inner, bias=bias)
        self.up = Linear(outer, inner, bias=bias)
        self.down = Linear(inner, outer, bias=bias, std=out_std)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class VisionMLP(nnx.Module):
    """fc2(quick_gelu(fc1(x))) with biases (the vision tower's)."""

    def __init__(self, width: int, hidden: int, out_std: float):
        self.fc1 = Linear({"vision_embed": width}, {"vision_mlp": hidden}, bias=True)
        self.fc2 = Linear({"vision_mlp": hidden}, {"vision_embed": width}, bias=True, std=out_std)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(quick_gelu(self.fc1(x)))
