"""The projector (Qwen2-VL's patch merger): each 2x2 block of patches becomes one token of the decoder's width."""

import jax
from flax import nnx

from umit_jax.model.config import ModelConfig
from umit_jax.model.layers import LayerNorm, RMSNorm
from umit_jax.model.param import Linear


class Projector(nnx.Module):
    def __init__(self, config: ModelConfig, norm: LayerNorm | RMSNorm):
        width = config.vision.width
        self.block = config.vision.merge_size**2
        merged = width * self.block
        self.norm = norm
        self.fc1 = Linear({"vision_embed": merged}, {"vision_mlp": merged}, bias=True)
        self.fc2 = Linear({"vision_mlp": merged}, {"embed": config.text.width}, bias=True)

    def __call__(self, x_BPE: jax.Array) -> jax.Array:
        """(B, P, E) with the patches of a block next to each other -> (B, P/4, D). The GELU is the exact one."""
        x = self.norm(x_BPE)
        x = x.reshape(x.shape[0], -1, x.shape[-1] * self.block)
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))
