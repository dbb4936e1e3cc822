"""The decoder: M-RoPE, grouped-query attention, gated MLP; four functions over the same stacked layers.

| function    | tokens            | attention                                    | returns                           |
| train       | whole packed rows | causal within a segment                      | x                                 |
| prefill     | whole rows        | causal within a segment                      | x, keys and values of every layer |
| decode_step | one per row       | to the filled slots of the layer's cache     | x, the updated caches             |
| branches    | several per row   | to the same slots, and causal within a branch | x, their keys and values         |
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from umit_jax.model.config import ModelConfig, TextConfig
from umit_jax.model.layers import POSITION_BIAS, GatedMLP, RMSNorm
from umit_jax.model.param import ANYWHERE, Linear, Place, layer_list, normal, scan_layers, stack
from umit_jax.model.rope import Table, mrope_table, rotate
from umit_jax.ops.attention import Implementation, attention
from umit_jax.ops.cached_attention import branch_attention, cached_attention

Caches = tuple[tuple[jax.Array, jax.Array], ...]  # keys (rotated) of each layer, (B, K, H, T), and values, (B, K, T, H)


class Attention(nnx.Module):
    def __init__(self, config: TextConfig, out_std: float):
        width, heads = {"embed": config.width}, {"heads": config.heads, "head_dim": config.head_dim}
        kv_heads = {"kv_heads": config.kv_heads, "head_dim": config.head_dim}
        self.q = Linear(width, heads, bias=True, bias_std=POSITION_BIAS)
        self.k = Linear(width, kv_heads, bias=True, bias_std=POSITION_BIAS)
        self.v = Linear(width, kv_heads, bias=True)
        self.o = Linear(heads, width, bias=False, std=out_std)


class DecoderLayer(nnx.Module):
    """One layer in two halves, so that train, prefill and decode can each put their own attention between them."""

    def __init__(self, config: TextConfig):
        depth = (2 * config.layers) ** -0.5  # keeps the residual stream's variance independent of depth at the start
        self.norm1 = RMSNorm(config.width, config.norm_eps)
        self.attn = Attention(config, depth * config.width**-0.5)
        self.norm2 = RMSNorm(config.width, config.norm_eps)
        self.mlp = GatedMLP(config.width, config.mlp_size, depth * config.mlp_size**-0.5)

    def qkv(self, x_BSD: jax.Array, rope: Table, place: Place = ANYWHERE) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Rotated queries (B, S, N, H), rotated keys and values (B, S, K, H)."""
        x = place.inside(self.norm1(x_BSD))
        return rotate(self.attn.q(x), rope), rotate(self.attn.k(x), rope), self.attn.v(x)

    def finish(self, x_BSD: jax.Array, attended_BSNH: jax.Array, place: Place = ANYWHERE) -> jax.Array:
        # inside first: in the backward pass a gradient is then gathered before it meets the weights
        x_BSD = x_BSD + place.between(place.inside(self.attn.o(attended_BSNH)))
        return x_BSD + place.between(place.inside(self.mlp(place.inside(self.norm2(x_BSD)))))


class Embed(nnx.Module):
    def __init__(self, config: TextConfig):
        self.embedding = normal((config.vocab_size, config.width), ("vocab", "embed"), config.width**-0.5)


class Head(nnx.Module):
    """The untied output layer; its kernel is (vocab, embed) like the embedding it replaces."""

    def __init__(self, config: TextConfig):
        self.kernel = normal((config.vocab_size, config.width), ("vocab", "embed"), config.width**-0.5)


class Decoder(nnx.Module):
    def __init__(self, config: ModelConfig):
        text = config.text
        self.config = text
        self.embed = Embed(text)
        self.layers = stack(text.layers, DecoderLayer(text))
        self.norm = RMSNorm(text.width, text.norm_eps)
        self.head = None if config.tied_head else Head(text)

    def embed_tokens(self, tokens_BS: jax.Array, dtype: jnp.dtype, place: Place = ANYWHERE) -> jax.Array:
        return place.lookup(self.embed.embedding.get_value(), tokens_BS, dtype)

    def head_VD(self) -> jax.Array:
        return (self.embed.embedding if self.head is None else self.head.kernel).get_value()

    def train(
        self,
        x_BSD: jax.Array,
        positions_BS3: jax.Array,
        segments_BS: jax.Array,
        *,
        remat: str,
        implementation: Implementation,
        place: Place = ANYWHERE,
    ) -> jax.Array:
        """Embedded tokens -> final normed hidden states."""
        rope = mrope_table(positions_BS3, self.config)

        def layer(layer: DecoderLayer, x: jax.Array) -> tuple[jax.Array, None]:
            q, k, v = layer.qkv(x, rope, place)
            return layer.finish(x, _causal(q, k, v, segments_BS, implementation), place), None

        return self.norm(scan_layers(layer, self.layers, place.between(x_BSD), remat)[0])

    def prefill(
        self, x_BSD: jax.Array, positions_BS3: jax.Array, segments_BS: jax.Array, *, implementation: Implementation
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """As train, and the keys and values to be cached: x_BSD, k_LBSKH, v_LBSKH (keys rotated)."""
        rope = mrope_table(positions_BS3, self.config)

        def layer(layer: DecoderLayer, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            q, k, v = layer.qkv(x, rope)
            return layer.finish(x, _causal(q, k, v, segments_BS, implementation)), (k, v)

        x_BSD, (k_LBSKH, v_LBSKH) = scan_layers(layer, self.layers, x_BSD, "none")
        return self.norm(x_BSD), k_LBSKH, v_LBSKH

    def decode_step(
        self,
        layers: Sequence[DecoderLayer],
        x_B1D: jax.Array,
        positions_B13: jax.Array,
        caches: Caches,
        slot: jax.Array,
        filled_BT: jax.Array,
    ) -> tuple[jax.Array, Caches]:
        """One more token per row: x_B1D and the updated caches, a (k_BKHT, v_BKTH) for each layer.

        layers: those of this decoder, one by one (layer_list).

        Its keys and values are written to cache slot `slot` (one int32 for all rows), and it attends to every slot
        where filled_BT is 1, which must include its own. Rows may have holes (right-padded prompts of different
        lengths), because rotated keys carry their position with them.
        """
        rope = mrope_table(positions_B13, self.config)
        updated = []
        for layer, (k_BKHT, v_BKTH) in zip(layers, caches, strict=True):
            q_B1NH, k_B1KH, v_B1KH = layer.qkv(x_B1D, rope)
            k_BKH1, v_BK1H = as_cached(k_B1KH, v_B1KH)
            k_BKHT = _write(k_BKHT, k_BKH1, slot, 3)
            v_BKTH = _write(v_BKTH, v_BK1H, slot, 2)
            attended_BNH = cached_attention(q_B1NH[:, 0], k_BKHT, v_BKTH, filled_BT)
            x_B1D = layer.finish(x_B1D, attended_BNH[:, None])
            updated.append((k_BKHT, v_BKTH))
        return self.norm(x_B1D), tuple(updated)

    def branches(
        self,
        x_BMD: jax.Array,
        positions_BM3: jax.Array,
        caches: Caches,
        filled_BT: jax.Array,
        branches_BM: jax.Array,
    ) -> tuple[jax.Array, Caches]:
        """Several continuations of what is cached, side by side in one row and each with its own number in
        branches_BM: final hidden states, and the keys and values (k_BKHM, v_BKMH) of each layer. The caches stay as
        they are."""
        rope = mrope_table(positions_BM3, self.config)
        own = []
        for layer, cache in zip(layer_list(self.layers), caches, strict=True):
            q, k, v = layer.qkv(x_BMD, rope)
            x_BMD = layer.finish(x_BMD, branch_attention(q, k, v, cache, filled_BT, branches_BM))
            own.append(as_cached(k, v))
        return self.norm(x_BMD), tuple(own)


def as_cached(k_BSKH: jax.Array, v_BSKH: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keys and values as Caches has them: k_BKHS, v_BKSH."""
    return k_BSKH.transpose(0, 2, 3, 1), v_BSKH.swapaxes(1, 2)


def _write(cache: jax.Array, new: jax.Array, slot: jax.Array, axis: int) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(cache, new.astype(cache.dtype), slot, axis)


def _causal(
    q: jax.Array, k: jax.Array, v: jax.Array, segments_BS: jax.Array, implementation: Implementation
) -> jax.Array:
    return attention(
        q, k, v, q_segments=segments_BS, k_segments=segments_BS, causal=True, implementation=implementation
    )
