"""Greedy generation: prefill the prompts, then one token a step for all rows until every row has stopped.

Two compiled programs per shape of Batch and max_new_tokens: `prefill` reads the prompts and fills the cache, `decode`
is one lax.while_loop over steps that leaves as soon as all rows are done. The cache is donated and lives in the
loop's carry, so it is updated in place. A new token's M-RoPE position, the same on all three axes, is one more than
the largest of everything before it (after an image the text goes on from its longer side, not from its token count).
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from umit_jax.batch import Batch
from umit_jax.infer.cache import Cache, make_cache, mark_filled
from umit_jax.model.config import ModelConfig
from umit_jax.model.param import bind

NO_TOKEN = -1  # an end token that never comes


class _State(NamedTuple):
    """The carry of the decoding loop. count: tokens each row has been given so far. token_B: the last of them."""

    count: jax.Array
    token_B: jax.Array
    tokens_BN: jax.Array
    lengths_B: jax.Array
    done_B: jax.Array
    cache: Cache


def generate(
    config: ModelConfig,
    params: Any,
    prompts: Batch,
    *,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    limits_B: np.ndarray | None = None,
    compute_dtype: str = "float32",
    attention: str = "blockwise",
) -> tuple[np.ndarray, np.ndarray]:
    """tokens_BN int32 and lengths_B int32, N = max_new_tokens: row b's answer is tokens_BN[b, : lengths_B[b]].

    prompts: one prompt a row, right-padded (segments 1, then 0); a row of padding only gets no tokens. limits_B:
    at most this many new tokens in each row, instead of N. A row stops at its first token in eos_ids, which stands at
    tokens_BN[b, lengths_B[b]] and is not part of the answer; a row that ran out of tokens has none there.
    Raises ValueError where a row holds more than one segment or max_new_tokens is not positive.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens: expected at least 1, found {max_new_tokens}")
    _check_rows(np.asarray(prompts.segments_BS))
    rows = prompts.tokens_BS.shape[0]
    limits = np.full(rows, max_new_tokens, np.int32) if limits_B is None else np.asarray(limits_B, np.int32)
    stops = np.array(sorted(eos_ids) or [NO_TOKEN], np.int32)
    state, position_B = prefill(
        config,
        params,
        prompts,
        limits,
        stops,
        max_new_tokens=max_new_tokens,
        compute_dtype=compute_dtype,
        attention=attention,
    )
    state = decode(config, params, state, position_B, limits, stops, compute_dtype=compute_dtype)
    return np.asarray(state.tokens_BN), np.asarray(state.lengths_B)


def _check_rows(segments_BS: np.ndarray) -> None:
    if not np.isin(segments_BS, (0, 1)).all() or (np.diff(segments_BS, axis=1) > 0).any():
        raise ValueError("segments_BS: expected one prompt a row: 1 and then, in padding, 0")


@functools.partial(jax.jit, static_argnames=("config", "max_new_tokens", "compute_dtype", "attention"))
def prefill(
    config: ModelConfig,
    params: Any,
    prompts: Batch,
    limits_B: jax.Array,
    eos_E: jax.Array,
    *,
    max_new_tokens: int,
    compute_dtype: str,
    attention: str,
) -> tuple[_State, jax.Array]:
    """The state after each row's first new token, and that token's position_B."""
    model = bind(config, params)
    x_BSD, k_LBSKH, v_LBSKH = model.prefill(prompts, compute_dtype=jnp.dtype(compute_dtype), attention=attention)
    filled_BS = prompts.segments_BS > 0
    prompt_B = filled_BS.sum(1)
    last_BD = jnp.take_along_axis(x_BSD, jnp.maximum(prompt_B - 1, 0)[:, None, None], axis=1)[:, 0]
    position_B = jnp.max(jnp.where(filled_BS[..., None], prompts.positions_BS3, -1), axis=(1, 2)) + 1
    rows = len(prompt_B)
    state = _State(
        count=jnp.zeros((), jnp.int32),
        token_B=jnp.zeros(rows, jnp.int32),
        tokens_BN=jnp.zeros((rows, max_new_tokens), jnp.int32),
        lengths_B=jnp.zeros(rows, jnp.int32),
        done_B=(prompt_B == 0) | (limits_B <= 0),
        cache=make_cache(k_LBSKH, v_LBSKH, prompts.segments_BS, max_new_tokens),
    )
    return _take(state, _logits(model, last_BD), limits_B, eos_E), position_B


@functools.partial(jax.jit, static_argnames=("config", "compute_dtype"), donate_argnames=("state",))
def decode(
    config: ModelConfig,
    params: Any,
    state: _State,
    position_B: jax.Array,
    limits_B: jax.Array,
    eos_E: jax.Array,
    *,
    compute_dtype: str,
) -> _State:
    """The state once every row is done: donated on the way in, so the cache is never held twice."""
    model = bind(config, params)
    slots = state.tokens_BN.shape[1]
    first_slot = state.cache.filled_BT.shape[1] - slots

    def running(state: _State) -> jax.Array:
        return (state.count < slots) & ~jnp.all(state.done_B)

    def step(state: _State) -> _State:
        slot = first_slot + state.count - 1
        filled_BT = mark_filled(state.cache.filled_BT, slot)
        x_BD, layers = model.decode_step(
            state.token_B,
            position_B + state.count - 1,
            state.cache.layers,
            slot,
            filled_BT,
            compute_dtype=jnp.dtype(compute_dtype),
        )
        state = state._replace(cache=Cache(layers, filled_BT))
        return _take(state, _logits(model, x_BD), limits_B, eos_E)

    return jax.lax.while_loop(running, step, state)


def _logits(model: Any, x_BD: jax.Array) -> jax.Array:
    return jnp.einsum("bd,vd->bv", x_BD, model.head_VD().astype(x_BD.dtype), preferred_element_type=jnp.float32)


def _take(state: _State, logits_BV: jax.Array, limits_B: jax.Array, eos_E: jax.Array) -> _State:
    """The state with the likeliest token appended to every row that is not done."""
    token_B = jnp.where(state.done_B, 0, jnp.argmax(logits_BV, axis=-1).astype(jnp.int32))
    stop_B = jnp.any(token_B[:, None] == eos_E, axis=-1)
    lengths_B = state.lengths_B + (~state.done_B & ~stop_B)
    tokens_BN = jax.lax.dynamic_update_slice(state.tokens_BN, token_B[:, None], (0, state.count))
    done_B = state.done_B | stop_B | (lengths_B >= limits_B)
    return state._replace(
        count=state.count + 1, token_B=token_B, tokens_BN=tokens_BN, lengths_B=lengths_B, done_B=done_B
    )
