"""Qwen2.5-VL's vision tower: RMSNorm, gated MLPs, and windows in most layers.

| layers          | a patch attends to                                                    |
| full_layers     | its whole frame, as in Qwen2-VL                                       |
| all others      | the window of its frame that it lies in, window_patches on each side  |

Windows start at a frame's upper left corner; those at its right and lower edge may be smaller. Any order of patches is
right; the host brings them window by window (data_pipelines/image.py), so that blockwise attention visits few blocks.
Source: Qwen2.5-VL (arXiv 2502.13923), transformers models/qwen2_5_vl.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx

from umit_jax.model.config import VisionConfig, get_value, require
from umit_jax.model.layers import GatedMLP, RMSNorm
from umit_jax.model.param import ANYWHERE, Linear, Place, scan_layers, stack
from umit_jax.model.rope import VISION_THETA, vision_table
from umit_jax.model.vision import Block, VisionAttention
from umit_jax.ops.attention import Implementation

NORM_EPS = 1e-6  # of every norm of the tower; config.json has none
_MOST_WINDOWS = 1 << 9  # along one side of a frame: 57,344 pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qwen25VisionConfig(VisionConfig):
    """mlp_size: width inside the gated MLPs. window_size: pixels along a side of a window. full_layers: numbers of the
    layers without windows, from 0. tokens_per_second: positions on the time axis that a second of video takes."""

    mlp_size: int
    full_layers: tuple[int, ...]
    window_size: int = 112
    tokens_per_second: int = 2

    @property
    def window_patches(self) -> int:
        """Patches along a side of a window, whole merged ones."""
        return self.window_size // (self.patch_size * self.merge_size) * self.merge_size

    def __post_init__(self) -> None:
        super().__post_init__()
        side = self.patch_size * self.merge_size
        require(self.window_patches > 0, "vision.window_size", f"at least {side} pixels", self.window_size)

    @classmethod
    def from_hf(cls, vision: Mapping[str, Any], text_width: int) -> Self:
        def get(key: str) -> Any:
            return get_value(vision, key, "vision_config.")

        act = vision.get("hidden_act", "silu")
        require(act == "silu", "vision_config.hidden_act", "silu", act)
        theta = (vision.get("rope_parameters") or {}).get("rope_theta", VISION_THETA)
        require(theta == VISION_THETA, "vision_config.rope_parameters.rope_theta", VISION_THETA, theta)
        out = get("out_hidden_size")
        require(out == text_width, "vision_config.out_hidden_size", text_width, out)
        return cls(
            width=get("hidden_size"),
            mlp_size=get("intermediate_size"),
            full_layers=tuple(get("fullatt_block_indexes")),
            window_size=get("window_size"),
            tokens_per_second=get("tokens_per_second"),
            **cls.shared_from_hf(vision),
        )

    def to_hf(self, text_width: int) -> dict[str, Any]:
        return {
            "model_type": "qwen2_5_vl",
            "hidden_size": self.width,
            "intermediate_size": self.mlp_size,
            "out_hidden_size": text_width,
            "fullatt_block_indexes": list(self.full_layers),
            "window_size": self.window_size,
            "tokens_per_second": self.tokens_per_second,
            **self.shared_to_hf(),
            "spatial_patch_size": self.patch_size,
            "hidden_act": "silu",
        }

    def host_numbers(self) -> dict[str, Any]:
        own = {"window": self.window_patches, "tokens_per_second": self.tokens_per_second}
        return {**super().host_numbers(), **own}


def window_segments(segments_BP: jax.Array, patch_hw_BP2: jax.Array, window: int) -> jax.Array:
    """Segments that part the windows of a frame too, (B, P) int32, 0 where segments_BP is 0.

    Distinct up to 512 windows along a side of a frame and 8,191 frames a row.
    """
    row_BP, column_BP = jnp.unstack(patch_hw_BP2 // window, axis=-1)
    inside_BP = row_BP * _MOST_WINDOWS + column_BP
    return jnp.where(segments_BP > 0, segments_BP * _MOST_WINDOWS**2 + inside_BP, 0)


class GatedVisionBlock(Block):
    def __init__(self, config: Qwen25VisionConfig):
        depth = (2 * config.layers) ** -0.5  # keeps the residual stream's variance independent of depth at the start
        self.norm1 = RMSNorm(config.width, NORM_EPS)
        self.attn = VisionAttention(config, depth * config.width**-0.5)
        self.norm2 = RMSNorm(config.width, NORM_EPS)
        out_std = depth * config.mlp_size**-0.5
        self.mlp = GatedMLP(config.width, config.mlp_size, out_std, prefix="vision_", bias=True)


class WindowedVisionTower(nnx.Module):
    def __init__(self, config: Qwen25VisionConfig):
        self.config = config
        self.patch_embed = Linear({"patch": config.patch_values}, {"vision_embed": config.width}, bias=False)
        self.blocks = stack(config.layers, GatedVisionBlock(config))

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
        windows_BP = window_segments(segments_BP, patch_hw_BP2, self.config.window_patches)
        full_L = jnp.array([layer in self.config.full_layers for layer in range(self.config.layers)])

        # All layers are one scan; only whom a patch may see differs, and blockwise attention finds that out as it runs.
        def block(layer: GatedVisionBlock, carry: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
            x_BPE, number = carry
            seen_BP = jnp.where(full_L[number], segments_BP, windows_BP)
            return (place.between(layer(x_BPE, rope, seen_BP, implementation, place)), number + 1), None

        start = place.between(self.patch_embed(pixels_BPC)), jnp.int32(0)
        return scan_layers(block, self.blocks, start, remat)[0][0]
