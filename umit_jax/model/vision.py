"""Qwen2-VL's vision tower: uint8 patches -> features, attending within one frame of one image.

Patches of a row are those of all its images, in 2x2 block-major order, padded at the end; patch_segments_BP keeps
images and the frames of a video apart.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from umit_jax.model.config import ModelConfig, VisionConfig, get_value, require
from umit_jax.model.layers import POSITION_BIAS, GatedMLP, LayerNorm, RMSNorm, VisionMLP
from umit_jax.model.param import ANYWHERE, Linear, Place, scan_layers, stack
from umit_jax.model.rope import Table, rotate, vision_table
from umit_jax.ops.attention import Implementation, attention


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qwen2VisionConfig(VisionConfig):
    """mlp_ratio: width of the blocks' MLP over that of the blocks."""

    mlp_ratio: int = 4

    @classmethod
    def from_hf(cls, vision: Mapping[str, Any], text_width: int) -> Self:
        act = vision.get("hidden_act", "quick_gelu")
        require(act == "quick_gelu", "vision_config.hidden_act", "quick_gelu", act)
        out = vision.get("hidden_size", text_width)
        require(out == text_width, "vision_config.hidden_size", text_width, out)
        width = get_value(vision, "embed_dim", "vision_config.")
        return cls(width=width, mlp_ratio=vision.get("mlp_ratio", 4), **cls.shared_from_hf(vision))

    def to_hf(self, text_width: int) -> dict[str, Any]:
        own = {"embed_dim": self.width, "hidden_size": text_width, "mlp_ratio": self.mlp_ratio}
        return {"model_type": "qwen2_vl", **own, **self.shared_to_hf(), "hidden_act": "quick_gelu"}


def normalise(patches_BPC: jax.Array, config: ModelConfig) -> jax.Array:
    """uint8 pixels -> float32 (pixel / 255 - mean) / std, channel by channel; C is (channel, time, y, x)."""
    each = config.vision.patch_values // config.vision.channels
    mean = np.repeat(np.asarray(config.image_mean, np.float64), each) * 255
    std = np.repeat(np.asarray(config.image_std, np.float64), each) * 255
    return (patches_BPC.astype(jnp.float32) - mean.astype(np.float32)) / std.astype(np.float32)


class VisionAttention(nnx.Module):
    def __init__(self, config: VisionConfig, out_std: float):
        heads = {"vision_heads": config.heads, "head_dim": config.head_dim}
        self.qkv = Linear({"vision_embed": config.width}, {"_qkv": 3, **heads}, bias=True, bias_std=POSITION_BIAS)
        self.proj = Linear(heads, {"vision_embed": config.width}, bias=True, std=out_std)

    def __call__(
        self, x_BPE: jax.Array, rope: Table, segments_BP: jax.Array, implementation: Implementation
    ) -> jax.Array:
        q, k, v = jnp.unstack(self.qkv(x_BPE), axis=2)
        out_BPNH = attention(
            rotate(q, rope),
            rotate(k, rope),
            v,
            q_segments=segments_BP,
            k_segments=segments_BP,
            causal=False,
            implementation=implementation,
        )
        return self.proj(out_BPNH)


class Block(nnx.Module):
    """A layer of a tower of either family."""

    norm1: LayerNorm | RMSNorm
    attn: VisionAttention
    norm2: LayerNorm | RMSNorm
    mlp: VisionMLP | GatedMLP

    def __call__(
        self, x_BPE: jax.Array, rope: Table, segments_BP: jax.Array, implementation: Implementation, place: Place
    ) -> jax.Array:
        # as in the decoder's layers; left to itself the compiler sends patches of all rows to the weights' parts
        attended_BPE = self.attn(place.inside(self.norm1(x_BPE)), rope, segments_BP, implementation)
        x_BPE = x_BPE + place.between(place.inside(attended_BPE))
        return x_BPE + place.between(place.inside(self.mlp(place.inside(self.norm2(x_BPE)))))


class VisionBlock(Block):
    def __init__(self, config: Qwen2VisionConfig):
        hidden = config.width * config.mlp_ratio
        depth = (2 * config.layers) ** -0.5  # keeps the residual stream's variance independent of depth at the start
        self.norm1 = LayerNorm(config.width)
        self.attn = VisionAttention(config, depth * config.width**-0.5)
        self.norm2 = LayerNorm(config.width)
        self.mlp = VisionMLP(config.width, hidden, depth * hidden**-0.5)


class VisionTower(nnx.Module):
    def __init__(self, config: Qwen2VisionConfig):
        self.config = config
        self.patch_embed = Linear({"patch": config.patch_values}, {"vision_embed": config.width}, bias=False)
        self.blocks = stack(config.layers, VisionBlock(config))

    def __call__(
        self,
        pixels_BPC: jax.Array,
        patch_hw_BP2: jax.Array,
        segments_BP: jax.Array,
        *,
        remat: str,
        implementation: Implementation,
        place: Place = ANYWHERE,
    ) -> jax.Array:
        """Normalised pixels in the compute dtype -> features (B, P, E). Features of padding mean nothing."""
        rope = vision_table(patch_hw_BP2, self.config)

        def block(layer: VisionBlock, x_BPE: jax.Array) -> tuple[jax.Array, None]:
            return place.between(layer(x_BPE, rope, segments_BP, implementation, place)), None

        return scan_layers(block, self.blocks, place.between(self.patch_embed(pixels_BPC)), remat)[0]
