"""Option likelihood: how probable a model finds each possible answer to a question, from one reading of the question.

All options of a row stand side by side in one row of tokens, each a branch that sees the cached prompt and itself:

    prompt (cached) | 1 : y e s | 2 : n o          what is read
                    | : y e s E | : n o E          what each of them must be followed by; E is the end token

The log-probability of an option is the sum over its tokens, the end token included: not divided by its length, because
"all of this text and then nothing" is one event, whose probability is this product. The first token of every option
follows the prompt itself.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from umit_jax.infer.cache import Cache
from umit_jax.model.config import ModelConfig
from umit_jax.model.param import bind
from umit_jax.ops.loss import token_nll

_CHUNK = 16  # tokens of a row whose logits exist at once
_STEP = 1e-3  # nats


class End(NamedTuple):
    """The end of each prompt. position_B: M-RoPE position of what follows. x_BD: hidden state of its last token."""

    position_B: jax.Array
    x_BD: jax.Array


class Options(NamedTuple):
    """Up to O options a row in M slots. first_BO: the first token of each. tokens_BM: all their tokens but the last of
    each; targets_BM: what follows each of them. branches_BM: number of the option from 1, 0 = padding. offsets_BM:
    place of a token in its option."""

    first_BO: np.ndarray
    tokens_BM: np.ndarray
    targets_BM: np.ndarray
    branches_BM: np.ndarray
    offsets_BM: np.ndarray


def pack(options: Sequence[Sequence[Sequence[int]]], rows: int, most: int, slots: int) -> Options:
    """The options of each row as token ids with their end token; rows beyond them and rows without any are padding."""
    packed = Options(np.zeros((rows, most), np.int32), *(np.zeros((rows, slots), np.int32) for _ in range(4)))
    for row, texts in enumerate(options):
        at = 0
        for number, ids in enumerate(texts):
            packed.first_BO[row, number] = ids[0]
            span = slice(at, at + len(ids) - 1)
            packed.tokens_BM[row, span], packed.targets_BM[row, span] = ids[:-1], ids[1:]
            packed.branches_BM[row, span], packed.offsets_BM[row, span] = number + 1, np.arange(len(ids) - 1)
            at = span.stop
    return packed


def slots_of(options: Sequence[Sequence[int]]) -> int:
    """How many slots of `pack` the options of one row take."""
    return sum(len(ids) - 1 for ids in options)


@functools.partial(jax.jit, static_argnames=("config", "compute_dtype"))
def option_logps(
    config: ModelConfig, params: Any, cache: Cache, end: End, options: Options, *, compute_dtype: str
) -> jax.Array:
    """log p (B, O) float32 of each option after its row's prompt, which the cache holds. Padding is meaningless."""
    model = bind(config, params)
    first_BV = jax.nn.log_softmax(logits_of(model, end.x_BD), axis=-1)
    x_BMD, _ = model.branches(
        options.tokens_BM,
        end.position_B[:, None] + options.offsets_BM,
        cache.layers,
        cache.filled_BT,
        options.branches_BM,
        compute_dtype=jnp.dtype(compute_dtype),
    )
    used_BM = (options.branches_BM > 0).astype(jnp.float32)
    chunk = min(_CHUNK, options.tokens_BM.shape[1])
    nll_BM = token_nll(x_BMD, model.head_VD(), options.targets_BM, used_BM, chunk)
    numbers_O = jnp.arange(1, options.first_BO.shape[1] + 1)
    own_BMO = options.branches_BM[..., None] == numbers_O
    rest_BO = jnp.sum(jnp.where(own_BMO, nll_BM[..., None], 0.0), axis=1)
    return jnp.take_along_axis(first_BV, jnp.asarray(options.first_BO), axis=-1) - rest_BO


def logits_of(model: Any, x_BD: jax.Array) -> jax.Array:
    return jnp.einsum("bd,vd->bv", x_BD, model.head_VD().astype(x_BD.dtype), preferred_element_type=jnp.float32)


def probabilities(logps: Sequence[float]) -> list[float]:
    """The softmax over log-probabilities. These are rounded to a thousandth of a nat first, so that the order in which
    devices add numbers does not show in a file."""
    rounded = [round(logp / _STEP) * _STEP for logp in logps]
    weights = [math.exp(logp - max(rounded)) for logp in rounded]
    return [weight / sum(weights) for weight in weights]


def mean_probability(logps: Sequence[float]) -> float:
    """The geometric mean of probabilities, to the same thousandth."""
    return math.exp(round(sum(logps) / len(logps) / _STEP) * _STEP)
