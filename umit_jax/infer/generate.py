"""Generation: prefill the prompts, score options beside them, then one token a step for all rows until all stop.

Compiled programs per shape of Batch and room for new tokens: `prefill` reads the prompts and fills the cache,
`option_logps` (score.py) reads it, `decode` is one lax.while_loop over steps that leaves as soon as all rows are done;
on a CPU as soon as half of them are, which then leave the batch, and it goes on with the others. There the cache has
room for few new tokens at first, and for more once these are there: every step reads all of it. Where prompts begin
alike, as questions about one image do, `prefill_prefix` reads what they share once and `prefill_rest`, instead of
`prefill`, goes on from there in every row. The cache is donated and lives in the loop's carry, so it is updated in
place. A new token's M-RoPE position, the same on all three axes, is one more than the largest of everything before it
(after an image the text goes on from its longer side, not from its token count). On a mesh rows lie over (data, fsdp),
and heads of the cache over tensor.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from umit_jax.batch import Batch
from umit_jax.infer.cache import Cache, joined, make_cache, mark_filled, rows_of, with_room
from umit_jax.infer.sampling import GREEDY, Sampling, choose
from umit_jax.infer.score import End, Options, logits_of, option_logps
from umit_jax.model.config import ModelConfig
from umit_jax.model.decoder import DecoderLayer
from umit_jax.model.param import bind
from umit_jax.parallel.barrier import compiled_together
from umit_jax.parallel.mesh import cache_sharding, everywhere, row_shards

NO_TOKEN = -1  # an end token that never comes
_FEWEST = 4  # rows to which a batch shrinks at most
_LOOK = 16  # tokens between two looks for what ends a text
_ROOM = 64  # new tokens, a multiple of _LOOK, for which a cache has room at first
_GROWTH = 4  # and how many times as many each time that it is full


class Generated(NamedTuple):
    """Row b's answer is tokens_BN[b, : lengths_B[b]], N = max_new_tokens; logps_BN are the log-probabilities of its
    tokens. options_BO: those of each option, None where none were given."""

    tokens_BN: np.ndarray
    lengths_B: np.ndarray
    logps_BN: np.ndarray
    options_BO: np.ndarray | None


class Rules(NamedTuple):
    """limits_B: most new tokens of each row. ends_E: tokens that end a row. keys_B2: of its random numbers."""

    limits_B: np.ndarray
    ends_E: np.ndarray
    keys_B2: np.ndarray


class Rest(NamedTuple):
    """What stands in each row after the prefix that it shares with others: text. prefix_B: the row of its prefix.
    positions_BM: the same on all three axes. filled_BM: 1 = a token, 0 = padding, on the right; a row of padding only
    gets no tokens."""

    prefix_B: Any
    tokens_BM: Any
    positions_BM: Any
    filled_BM: Any


class _State(NamedTuple):
    """The carry of the decoding loop. count: tokens each row has been given so far. token_B: the last of them.
    tokens_BN, logps_BN: N is the cache's room for new tokens, at most what was asked for."""

    count: jax.Array
    token_B: jax.Array
    tokens_BN: jax.Array
    logps_BN: jax.Array
    lengths_B: jax.Array
    done_B: jax.Array
    cache: Cache


def generate(
    config: ModelConfig,
    params: Any,
    prompts: Batch | Rest,
    *,
    prefix: Cache | None = None,
    layers: list[DecoderLayer] | None = None,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    limits_B: np.ndarray | None = None,
    compute_dtype: str = "float32",
    attention: str = "blockwise",
    sampling: Sampling = GREEDY,
    keys_B2: np.ndarray | None = None,
    options: Options | None = None,
    ended: Callable[[list[int]], bool] | None = None,
    mesh: Mesh | None = None,
) -> Generated:
    """Answers to prompts, one a row, right-padded (segments 1, then 0); a row of padding only gets no tokens.

    prefix: of prefill_prefix, what rows begin with where prompts are a Rest. layers: of layers_apart, for many calls.
    limits_B: at most this many new tokens in each row, instead of N. A row stops at its first token in eos_ids, which
    stands at tokens_BN[b, lengths_B[b]] and is not part of the answer; a row that ran out of tokens has none there.
    ended: says of a row's tokens so far that nothing more is wanted; asked now and then, so more may have come.
    keys_B2: of the random numbers of each row (sampling.row_keys). mesh: the devices over which params and prompts lie.
    Raises ValueError where a row holds more than one segment or max_new_tokens is not positive.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens: expected at least 1, found {max_new_tokens}")
    if isinstance(prompts, Batch) and isinstance(prompts.segments_BS, np.ndarray):
        _check_rows(prompts.segments_BS)
    rows = prompts[0].shape[0]
    limits = np.full(rows, max_new_tokens, np.int32) if limits_B is None else np.asarray(limits_B, np.int32)
    keys = np.zeros((rows, 2), np.uint32) if keys_B2 is None else keys_B2
    rules = Rules(limits, np.array(sorted(eos_ids) or [NO_TOKEN], np.int32), keys)
    how: dict[str, Any] = {"compute_dtype": compute_dtype, "sampling": sampling, "mesh": mesh}
    room = _room(_ROOM, max_new_tokens)
    if prefix is None:
        state, end = compiled_together(prefill, config, params, prompts, rules, room=room, attention=attention, **how)
    else:
        state, end = compiled_together(prefill_rest, config, params, prefix, prompts, rules, room=room, **how)
    options_BO = None
    if options is not None:
        scored = compiled_together(option_logps, config, params, state.cache, end, options, compute_dtype=compute_dtype)
        options_BO = everywhere(scored)
    layers = layers_apart(config, params) if layers is None else layers
    shards = 1 if mesh is None else row_shards(mesh)
    tokens_BN, lengths_B = np.zeros((rows, max_new_tokens), np.int32), np.zeros(rows, np.int32)
    logps_BN = np.zeros((rows, max_new_tokens), np.float32)
    here_R, done_R, count = np.arange(rows), np.zeros(rows, bool), 0  # here_R: the rows that the state still has
    while count < max_new_tokens and not done_R.all():
        look = (count // _LOOK + 1) * _LOOK  # at the same tokens whatever other rows there are
        until = min(look, room) if ended else room
        fewer = _fewer(len(here_R), shards)
        state = compiled_together(
            decode, config, params, layers, state, end, rules, np.int32(until), np.int32(fewer), done_R, **how
        )
        tokens_BN[here_R, :room], logps_BN[here_R, :room] = everywhere(state.tokens_BN), everywhere(state.logps_BN)
        lengths_B[here_R], done_R, count = everywhere(state.lengths_B), everywhere(state.done_B), int(state.count)
        if ended and count == until:
            done_R = done_R | [ended(tokens_BN[row, : lengths_B[row]].tolist()) for row in here_R]
        live = int((~done_R).sum())
        if fewer and 0 < live <= fewer:
            while live <= (next_fewer := _fewer(fewer, shards)):
                fewer = next_fewer
            kept_R = np.sort(np.argsort(done_R, kind="stable")[:fewer])
            state, end = compiled_together(_kept, state, end, kept_R, mesh=mesh)
            rules = rules._replace(limits_B=rules.limits_B[kept_R], keys_B2=rules.keys_B2[kept_R])
            here_R, done_R = here_R[kept_R], done_R[kept_R]
        if live and count == room < max_new_tokens:
            room = _room(_GROWTH * room, max_new_tokens)
            state = compiled_together(_grown, state, room=room, mesh=mesh)
    return Generated(tokens_BN, lengths_B, logps_BN, options_BO)


def layers_apart(config: ModelConfig, params: Any) -> list[DecoderLayer] | None:
    """On a CPU the decoder's layers one by one, as their weights are read fastest; elsewhere None. XLA:CPU copies a
    layer's weights out of the stack to use them: so this is done once, and not again for every token."""
    return compiled_together(_layers_apart, config, params) if jax.default_backend() == "cpu" else None


@functools.partial(jax.jit, static_argnames=("config",))
def _layers_apart(config: ModelConfig, params: Any) -> list[DecoderLayer]:
    return bind(config, params).decoder_layers(few_tokens=True)


def _fewer(rows: int, shards: int) -> int:
    """To how many rows a batch shrinks as soon as no more are left to answer, 0: to none. On a CPU a step costs nearly
    in proportion to its rows; elsewhere it costs reading the weights, and other shapes would only be compiled."""
    half = rows // 2
    return half if jax.default_backend() == "cpu" and half >= _FEWEST and half % shards == 0 else 0


def _room(wanted: int, most: int) -> int:
    """Of the new tokens that may come, those for which a cache has room. On a CPU a step costs reading all of it;
    elsewhere that is little beside the weights, and other shapes would only be compiled."""
    return min(wanted, most) if jax.default_backend() == "cpu" else most


@functools.partial(jax.jit, static_argnames=("room", "mesh"))
def _grown(state: _State, *, room: int, mesh: Mesh | None) -> _State:
    """state with room for so many new tokens."""
    more = room - state.tokens_BN.shape[1]

    def longer(x_BN: jax.Array) -> jax.Array:
        return jnp.pad(x_BN, ((0, 0), (0, more)))

    return state._replace(
        tokens_BN=longer(state.tokens_BN),
        logps_BN=longer(state.logps_BN),
        cache=_laid(with_room(state.cache, more), mesh),
    )


@functools.partial(jax.jit, static_argnames=("mesh",))
def _kept(state: _State, end: End, rows_R: jax.Array, *, mesh: Mesh | None) -> tuple[_State, End]:
    """Some rows of what decode goes on from."""
    kept, end = jax.tree.map(lambda x: x[rows_R], (state._replace(count=None), end))
    return kept._replace(count=state.count, cache=_laid(kept.cache, mesh)), end


def _check_rows(segments_BS: np.ndarray) -> None:
    if not np.isin(segments_BS, (0, 1)).all() or (np.diff(segments_BS, axis=1) > 0).any():
        raise ValueError("segments_BS: expected one prompt a row: 1 and then, in padding, 0")


@functools.partial(jax.jit, static_argnames=("config", "room", "compute_dtype", "attention", "sampling", "mesh"))
def prefill(
    config: ModelConfig,
    params: Any,
    prompts: Batch,
    rules: Rules,
    *,
    room: int,
    compute_dtype: str,
    attention: str,
    sampling: Sampling = GREEDY,
    mesh: Mesh | None = None,
) -> tuple[_State, End]:
    """The state after each row's first new token, and the end of each prompt. room: new tokens that can be held."""
    model = bind(config, params)
    x_BSD, k_LBSKH, v_LBSKH = model.prefill(prompts, compute_dtype=jnp.dtype(compute_dtype), attention=attention)
    cache = with_room(make_cache(k_LBSKH, v_LBSKH, prompts.segments_BS), room)
    end = _end(x_BSD, prompts.positions_BS3.max(-1), prompts.segments_BS > 0)
    return _start(model, _laid(cache, mesh), end, prompts.segments_BS[:, 0] > 0, rules, room, sampling), end


@functools.partial(jax.jit, static_argnames=("config", "compute_dtype", "attention", "mesh"))
def prefill_prefix(
    config: ModelConfig,
    params: Any,
    prefixes: Batch,
    *,
    compute_dtype: str,
    attention: str = "blockwise",
    mesh: Mesh | None = None,
) -> Cache:
    """The keys and values of what several prompts begin with, one prefix a row, for `prefill_rest`."""
    model = bind(config, params)
    _, k_LBSKH, v_LBSKH = model.prefill(prefixes, compute_dtype=jnp.dtype(compute_dtype), attention=attention)
    return _laid(make_cache(k_LBSKH, v_LBSKH, prefixes.segments_BS), mesh)


@functools.partial(jax.jit, static_argnames=("config", "room", "compute_dtype", "sampling", "mesh"))
def prefill_rest(
    config: ModelConfig,
    params: Any,
    prefix: Cache,
    rest: Rest,
    rules: Rules,
    *,
    room: int,
    compute_dtype: str,
    sampling: Sampling = GREEDY,
    mesh: Mesh | None = None,
) -> tuple[_State, End]:
    """As prefill, for rows that begin with a prefix that has been read."""
    model = bind(config, params)
    before = _laid(rows_of(prefix, rest.prefix_B), mesh)
    x_BMD, own = model.branches(
        rest.tokens_BM,
        rest.positions_BM,
        before.layers,
        before.filled_BT,
        rest.filled_BM,
        compute_dtype=jnp.dtype(compute_dtype),
    )
    cache = with_room(joined(before, Cache(own, rest.filled_BM)), room)
    end = _end(x_BMD, rest.positions_BM, rest.filled_BM > 0)
    return _start(model, _laid(cache, mesh), end, rest.filled_BM[:, 0] > 0, rules, room, sampling), end


def _end(x_BSD: jax.Array, positions_BS: jax.Array, filled_BS: jax.Array) -> End:
    last_B1 = jnp.maximum(filled_BS.sum(1, keepdims=True) - 1, 0)
    last_BD = jnp.take_along_axis(x_BSD, last_B1[..., None], axis=1)[:, 0]
    return End(jnp.max(jnp.where(filled_BS, positions_BS, -1), axis=1) + 1, last_BD)


def _start(
    model: Any, cache: Cache, end: End, asked_B: jax.Array, rules: Rules, room: int, sampling: Sampling
) -> _State:
    """The state after the first new token of each row that asks anything."""
    rows = len(asked_B)
    state = _State(
        count=jnp.zeros((), jnp.int32),
        token_B=jnp.zeros(rows, jnp.int32),
        tokens_BN=jnp.zeros((rows, room), jnp.int32),
        logps_BN=jnp.zeros((rows, room), jnp.float32),
        lengths_B=jnp.zeros(rows, jnp.int32),
        done_B=~asked_B | (rules.limits_B <= 0),
        cache=cache,
    )
    return _take(state, logits_of(model, end.x_BD), rules, sampling)


@functools.partial(jax.jit, static_argnames=("config", "compute_dtype", "sampling", "mesh"), donate_argnames=("state",))
def decode(
    config: ModelConfig,
    params: Any,
    layers: list[DecoderLayer] | None,
    state: _State,
    end: End,
    rules: Rules,
    until: jax.Array,
    fewer: jax.Array,
    stopped_B: jax.Array,
    *,
    compute_dtype: str,
    sampling: Sampling = GREEDY,
    mesh: Mesh | None = None,
) -> _State:
    """The state once all rows but `fewer` are done, or have `until` tokens; rows of stopped_B get no more. state is
    donated, so no step holds the cache twice."""
    model = bind(config, params)
    first_slot = state.cache.filled_BT.shape[1] - state.tokens_BN.shape[1]

    def running(state: _State) -> jax.Array:
        return (state.count < until) & (jnp.sum(~state.done_B) > fewer)

    def step(state: _State) -> _State:
        slot = first_slot + state.count - 1
        filled_BT = mark_filled(state.cache.filled_BT, slot)
        x_BD, caches = model.decode_step(
            layers or model.decoder_layers(),
            state.token_B,
            end.position_B + state.count - 1,
            state.cache.layers,
            slot,
            filled_BT,
            compute_dtype=jnp.dtype(compute_dtype),
        )
        state = state._replace(cache=_laid(Cache(caches, filled_BT), mesh))
        return _take(state, logits_of(model, x_BD), rules, sampling)

    return jax.lax.while_loop(running, step, state._replace(done_B=state.done_B | stopped_B))


def _laid(cache: Cache, mesh: Mesh | None) -> Cache:
    """The cache over the devices of a mesh."""
    if mesh is None:
        return cache
    return cache._replace(layers=jax.lax.with_sharding_constraint(cache.layers, cache_sharding(mesh)))


def _take(state: _State, logits_BV: jax.Array, rules: Rules, sampling: Sampling) -> _State:
    """The state with the next token appended to every row that is not done."""
    token_B = jnp.where(state.done_B, 0, choose(logits_BV, sampling, rules.keys_B2, state.count))
    chosen_B1 = jnp.take_along_axis(logits_BV, token_B[:, None], axis=-1)
    logp_B1 = chosen_B1 - jax.nn.logsumexp(logits_BV, axis=-1, keepdims=True)
    stop_B = jnp.any(token_B[:, None] == rules.ends_E, axis=-1)
    lengths_B = state.lengths_B + (~state.done_B & ~stop_B)
    return state._replace(
        count=state.count + 1,
        token_B=token_B,
        tokens_BN=jax.lax.dynamic_update_slice(state.tokens_BN, token_B[:, None], (0, state.count)),
        logps_BN=jax.lax.dynamic_update_slice(state.logps_BN, logp_B1, (0, state.count)),
        lengths_B=lengths_B,
        done_B=state.done_B | stop_B | (lengths_B >= rules.limits_B),
    )
