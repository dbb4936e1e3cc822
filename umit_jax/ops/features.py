"""Image features where their tokens stand. Each stands in at most one place, so the gradient is the same move
backwards: adding up, which is what differentiating an indexed read gives, costs a TPU a sort of all places.
"""

import jax
import jax.numpy as jnp


def put_features(features_BMD: jax.Array, index_BS: jax.Array) -> jax.Array:
    """features_BMD[b, index_BS[b, s]] -> (B, S, D); where the index is -1, something that the caller must not use.

    No index but -1 may come twice in a row (batch.check_batch): of one that did, the gradient would miss a part.
    """
    return _put(features_BMD, index_BS)


def _read(x_BMD: jax.Array, index_BS: jax.Array) -> jax.Array:
    return jax.vmap(lambda x, index: x[index])(x_BMD, index_BS)


def _forward(features_BMD: jax.Array, index_BS: jax.Array) -> tuple[jax.Array, jax.Array]:
    count = features_BMD.shape[1]
    nowhere, places = jnp.full(count, -1, jnp.int32), jnp.arange(index_BS.shape[1], dtype=jnp.int32)
    outside_BS = jnp.where(index_BS >= 0, index_BS, count)
    place_BM = jax.vmap(lambda index: nowhere.at[index].set(places, mode="drop"))(outside_BS)
    return _read(features_BMD, jnp.maximum(index_BS, 0)), place_BM


def _backward(place_BM: jax.Array, d_BSD: jax.Array) -> tuple[jax.Array, None]:
    return jnp.where(place_BM[..., None] >= 0, _read(d_BSD, jnp.maximum(place_BM, 0)), 0), None


_put = jax.custom_vjp(lambda features_BMD, index_BS: _forward(features_BMD, index_BS)[0])
_put.defvjp(_forward, _backward)
