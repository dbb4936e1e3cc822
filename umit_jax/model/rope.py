"""Rotary position tables: M-RoPE of the decoder and the 2D rope of the vision tower, in float32.

A table is (cos, sin), each with one angle per half of the head: rotation pairs element i with element i + H/2.

| table  | positions        | which axis an angle takes                                                   |
| M-RoPE | (t, h, w)        | mrope_section consecutive angles per axis: all of t, then h, then w         |
| vision | (row, column)    | the first half of the angles is rows, the second half columns, same speeds  |

Source: Qwen2-VL (arXiv 2409.12191), Qwen2VLRotaryEmbedding and Qwen2VLVisionRotaryEmbedding of transformers.
"""

import jax
import jax.numpy as jnp
import numpy as np

from umit_jax.model.config import TextConfig, VisionConfig

Table = tuple[jax.Array, jax.Array]

VISION_THETA = 10000.0


def _speeds(theta: float, dim: int) -> np.ndarray:
    return (1.0 / theta ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim))).astype(np.float32)


def mrope_table(positions_BS3: jax.Array, config: TextConfig) -> Table:
    """cos and sin, float32 (B, S, H/2)."""
    axis = np.repeat(np.arange(len(config.mrope_section)) % 3, config.mrope_section)
    angles = positions_BS3.astype(jnp.float32)[..., axis] * _speeds(config.rope_theta, config.head_dim)
    return jnp.cos(angles), jnp.sin(angles)


def vision_table(patch_hw_BP2: jax.Array, config: VisionConfig) -> Table:
    """cos and sin, float32 (B, P, H/2)."""
    speeds = _speeds(VISION_THETA, config.head_dim // 2)
    angles = patch_hw_BP2.astype(jnp.float32)[..., None] * speeds
    angles = angles.reshape(*patch_hw_BP2.shape[:-1], 2 * len(speeds))
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x_BSNH: jax.Array, table: Table) -> jax.Array:
    """x with every head rotated by its position's angles, in the dtype of x."""
    cos, sin = (t[:, :, None, :] for t in table)
    first, second = jnp.split(x_BSNH.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BSNH.dtype)
