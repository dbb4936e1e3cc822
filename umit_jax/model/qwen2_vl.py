"""Qwen2-VL (arXiv 2409.12191). Read this first.

    uint8 patches -> normalise -> VisionTower -> Projector ─┐ one token per 2x2 patches
    token ids     -> embedding ──────────────────────────────┴-> Decoder -> hidden states -> head (ops/loss.py)

A model never sees a string, a file or a mesh: it takes a Batch (umit_jax/batch.py), and `bind(config, params)` of
model/param.py gives it its parameters.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from umit_jax.batch import Batch
from umit_jax.model.config import ModelConfig
from umit_jax.model.decoder import Caches, Decoder, DecoderLayer
from umit_jax.model.layers import LayerNorm
from umit_jax.model.param import ANYWHERE, Place, layer_list
from umit_jax.model.projector import Projector
from umit_jax.model.vision import Qwen2VisionConfig, VisionTower, normalise
from umit_jax.ops.attention import Implementation
from umit_jax.ops.features import put_features


class Qwen2VL(nnx.Module):
    vision: Callable[..., jax.Array]  # a family with another tower (qwen2_5_vl.py) keeps the rest

    def __init__(self, config: ModelConfig):
        assert isinstance(config.vision, Qwen2VisionConfig), config.vision
        self.config = config
        self.vision = VisionTower(config.vision)
        self.projector = Projector(config, LayerNorm(config.vision.width))
        self.decoder = Decoder(config)

    def embed(
        self,
        batch: Batch,
        *,
        compute_dtype: jnp.dtype = jnp.float32,  # type: ignore[assignment]
        remat: str = "none",
        attention: Implementation = "blockwise",
        place: Place = ANYWHERE,
    ) -> jax.Array:
        """What the decoder reads, (B, S, D): embedded tokens, with image features where vision_index_BS points."""
        x_BSD = self.decoder.embed_tokens(batch.tokens_BS, compute_dtype, place)
        if batch.patches_BPC.shape[1] == 0:
            return x_BSD
        features_BPE = self.vision(
            normalise(batch.patches_BPC, self.config).astype(compute_dtype),
            batch.patch_hw_BP2,
            batch.patch_segments_BP,
            remat=remat,
            implementation=attention,
            place=place,
        )
        merged_BMD = self.projector(features_BPE)
        index_BS = batch.vision_index_BS
        return jnp.where(index_BS[..., None] >= 0, put_features(merged_BMD, index_BS), x_BSD)

    def hidden(
        self,
        batch: Batch,
        *,
        compute_dtype: jnp.dtype = jnp.float32,  # type: ignore[assignment]
        remat: str = "none",
        attention: Implementation = "blockwise",
        place: Place = ANYWHERE,
    ) -> jax.Array:
        """Final hidden states x_BSD in compute_dtype, for training and scoring.

        remat: a key of param.REMAT, what the backward pass keeps of each layer. attention: see ops/attention.py.
        place: how activations lie over devices.
        """
        x_BSD = self.embed(batch, compute_dtype=compute_dtype, remat=remat, attention=attention, place=place)
        return self.decoder.train(
            x_BSD, batch.positions_BS3, batch.segments_BS, remat=remat, implementation=attention, place=place
        )

    def prefill(
        self,
        batch: Batch,
        *,
        compute_dtype: jnp.dtype = jnp.float32,  # type: ignore[assignment]
        attention: Implementation = "blockwise",
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """x_BSD, k_LBSKH, v_LBSKH for decoding from these rows (one prompt a row: segments 1, padding 0)."""
        x_BSD = self.embed(batch, compute_dtype=compute_dtype, attention=attention)
        return self.decoder.prefill(x_BSD, batch.positions_BS3, batch.segments_BS, implementation=attention)

    def decoder_layers(self, *, few_tokens: bool = False) -> list[DecoderLayer]:
        """The layers one by one, for decode_step (see param.layer_list)."""
        return layer_list(self.decoder.layers, few_tokens=few_tokens)

    def decode_step(
        self,
        layers: Sequence[DecoderLayer],
        tokens_B: jax.Array,
        positions_B: jax.Array,
        caches: Caches,
        slot: jax.Array,
        filled_BT: jax.Array,
        *,
        compute_dtype: jnp.dtype = jnp.float32,  # type: ignore[assignment]
    ) -> tuple[jax.Array, Caches]:
        """One more text token per row, at the same position on all three axes: x_BD and the updated caches.

        See Decoder.decode_step for layers, slot and filled_BT.
        """
        x_B1D = self.decoder.embed_tokens(tokens_B[:, None], compute_dtype)
        positions_B13 = jnp.broadcast_to(positions_B[:, None, None], (*x_B1D.shape[:2], 3))
        x_B1D, caches = self.decoder.decode_step(layers, x_B1D, positions_B13, caches, slot, filled_BT)
        return x_B1D[:, 0], caches

    def branches(
        self,
        tokens_BM: jax.Array,
        positions_BM: jax.Array,
        caches: Caches,
        filled_BT: jax.Array,
        branches_BM: jax.Array,
        *,
        compute_dtype: jnp.dtype = jnp.float32,  # type: ignore[assignment]
    ) -> tuple[jax.Array, Caches]:
        """Text that may follow each row, several versions of it beside each other: x_BMD, and the keys and values of
        each layer (see Decoder.branches)."""
        x_BMD = self.decoder.embed_tokens(tokens_BM, compute_dtype)
        positions_BM3 = jnp.broadcast_to(positions_BM[..., None], (*positions_BM.shape, 3))
        return self.decoder.branches(x_BMD, positions_BM3, caches, filled_BT, branches_BM)

    def head_VD(self) -> jax.Array:
        """The output layer, one row per token of the vocabulary; the embedding itself where the head is tied."""
        return self.decoder.head_VD()
