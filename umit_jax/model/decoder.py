"""The decoder: M-RoPE, grouped-query attention, gated MLP; three functions over the same stacked layers.

| function    | tokens            | attention                                    | returns                           |
| train       | whole packed rows | causal within a segment                      | x                                 |
| prefill     | whole rows        | causal within a segment                      | x, keys and values of every layer |
| decode_step | one per row       | to cache slots of the same segment           | x, the updated caches             |
"""

import jax
import jax.numpy as jnp
from flax import nnx

from umit_jax.model.config import ModelConfig, TextConfig
from umit_jax.model.layers import GatedMLP, RMSNorm
from umit_jax.model.param import Linear, loop_layers, normal, scan_layers, stack
from umit_jax.model.rope import Table, mrope_table, rotate
from umit_jax.ops.attention import attention


class Attention(nnx.Module):
    def __init__(self, config: TextConfig, out_std: float):
        width, heads = {"embed": config.width}, {"heads": config.heads, "head_dim": config.head_dim}
        kv_heads = {"kv_heads": config.kv_heads, "head_dim": config.head_dim}
        self.q = Linear(width, heads, bias=True)
        self.k = Linear(width, kv_heads, bias=True)
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

    def qkv(self, x_BSD: jax.Array, rope: Table) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Rotated queries (B, S, N, H), rotated keys and values (B, S, K, H)."""
        x = self.norm1(x_BSD)
        return rotate(self.attn.q(x), rope), rotate(self.attn.k(x), rope), self.attn.v(x)

    def finish(self, x_BSD: jax.Array, attended_BSNH: jax.Array) -> jax.Array:
        x_BSD = x_BSD + self.attn.o(attended_BSNH)
        return x_BSD + self.mlp(self.norm2(x_BSD))


class Embed(nnx.Module):
    def __init__(self, config: TextConfig):
        self.embedding = normal((config.vocab_size, config.width), ("vocab", "embed"), 0.02)


class Head(nnx.Module):
    """The untied output layer; its kernel is (vocab, embed) like the embedding it replaces."""

    def __init__(self, config: TextConfig):
        self.kernel = normal((config.vocab_size, config.width), ("vocab", "embed"), 0.02)


class Decoder(nnx.Module):
    def __init__(self, config: ModelConfig):
        text = config.text
        self.config = text
        self.embed = Embed(text)
        self.layers = stack(text.layers, DecoderLayer(text))
        self.norm = RMSNorm(text.width, text.norm_eps)
        self.head = None if config.tied_head else Head(text)

    def embed_tokens(self, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
        return self.embed.embedding.get_value()[tokens].astype(dtype)

    def head_VD(self) -> jax.Array:
        return (self.embed.embedding if self.head is None else self.head.kernel).get_value()

    def train(
        self, x_BSD: jax.Array, positions_BS3: jax.Array, segments_BS: jax.Array, *, remat: str, implementation: str
    ) -> jax.Array:
        """Embedded tokens -> final normed hidden states."""
        rope = mrope_table(positions_BS3, self.config)

        def layer(layer: DecoderLayer, x: jax.Array) -> tuple[jax.Array, None]:
            q, k, v = layer.qkv(x, rope)
            return layer.finish(x, _causal(q, k, v, segments_BS, implementation)), None

        return self.norm(scan_layers(layer, self.layers, x_BSD, remat)[0])

    def prefill(
        self, x_BSD: jax.Array, positions_BS3: jax.Array, segments_BS: jax.Array, *, implementation: str
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
        x_B1D: jax.Array,
        positions_B13: jax.Array,
        k_LBTKH: jax.Array,
        v_LBTKH: jax.Array,
        slot: jax.Array,
        segments_BT: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """One more token per row: x_B1D, k_LBTKH, v_LBTKH.

        Its keys and values are written to cache slot `slot` (one int32 for all rows), and it attends to every slot
        where segments_BT is 1, which must include its own. Rows may have holes (right-padded prompts of different
        lengths), because rotated keys carry their position with them.
        """
        rope = mrope_table(positions_B13, self.config)
        queries_B1 = jnp.ones_like(segments_BT[:, :1])

        def layer(
            layer: DecoderLayer, number: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array, jax.Array]:
            x, k_cache, v_cache = carry
            q, k, v = layer.qkv(x, rope)
            start = (number, 0, slot, 0, 0)
            k_cache = jax.lax.dynamic_update_slice(k_cache, k[None].astype(k_cache.dtype), start)
            v_cache = jax.lax.dynamic_update_slice(v_cache, v[None].astype(v_cache.dtype), start)
            attended = attention(
                q,
                jax.lax.dynamic_index_in_dim(k_cache, number, keepdims=False),
                jax.lax.dynamic_index_in_dim(v_cache, number, keepdims=False),
                q_segments=queries_B1,
                k_segments=segments_BT,
                causal=False,
                implementation="xla",
            )
            return layer.finish(x, attended), k_cache, v_cache

        x_B1D, k_LBTKH, v_LBTKH = loop_layers(layer, self.layers, (x_B1D, k_LBTKH, v_LBTKH))
        return self.norm(x_B1D), k_LBTKH, v_LBTKH


def _causal(q: jax.Array, k: jax.Array, v: jax.Array, segments_BS: jax.Array, implementation: str) -> jax.Array:
    return attention(
        q, k, v, q_segments=segments_BS, k_segments=segments_BS, causal=True, implementation=implementation
    )
