import jax
import jax.numpy as jnp
import numpy as np

from umit_jax.ops.features import put_features


def test_features_and_their_gradients_move_as_an_indexed_read_moves_them():
    """The second row has an image of which one feature is not shown, the third none."""
    rng = np.random.default_rng(0)
    features, probe = (jnp.asarray(rng.normal(size=(3, n, 4)), jnp.float32) for n in (5, 9))
    index = np.full((3, 9), -1, np.int32)
    index[0, 2:7] = [3, 0, 4, 1, 2]
    index[1, 5:9] = [0, 1, 2, 4]

    def run(read):
        def total(features):
            placed = jnp.where(index[..., None] >= 0, read(features), 0)
            return jnp.sum(placed * probe), placed

        return jax.grad(total, has_aux=True)(features)

    ours, plain = run(lambda x: put_features(x, index)), run(lambda x: x[jnp.arange(3)[:, None], index])
    for found, expected in zip(ours, plain, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not np.any(ours[0][1, 3])
    assert not np.any(ours[0][2])
