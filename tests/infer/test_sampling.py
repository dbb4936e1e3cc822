"""Drawn tokens: from the distribution that was asked for, and the same whatever else is in the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.infer.test_buckets import CONFIG, make_prompt
from umit_jax.infer.buckets import answer_all
from umit_jax.infer.sampling import Sampling, SamplingError, choose, kept, row_keys
from umit_jax.model.param import init_params

LOGITS = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
FLAT = Sampling(temperature=1.0)


def survivors(sampling):
    return np.flatnonzero(np.isfinite(kept(LOGITS, sampling))[0]).tolist()


def test_top_k_and_top_p_leave_the_likeliest():
    assert survivors(FLAT) == [0, 1, 2, 3]
    assert survivors(Sampling(1.0, top_k=2)) == [0, 1]
    assert survivors(Sampling(1.0, top_p=0.5)) == [0]
    assert survivors(Sampling(1.0, top_p=0.51)) == [0, 1]
    assert survivors(Sampling(1.0, top_k=3, top_p=0.85)) == [0, 1, 2]  # of three, 0.95 between them
    assert survivors(Sampling(1.0, top_k=9)) == [0, 1, 2, 3]


def test_tokens_come_as_often_as_they_are_probable():
    ids = [str(i) for i in range(4000)]
    rows = jnp.broadcast_to(LOGITS, (len(ids), 4))
    for temperature in (1.0, 2.0):
        drawn = choose(rows, Sampling(temperature), row_keys(0, ids), jnp.int32(0))
        expected = np.asarray(jax.nn.softmax(LOGITS / temperature))[0]
        np.testing.assert_allclose(np.bincount(drawn, minlength=4) / len(ids), expected, atol=0.03)


def test_a_row_s_key_is_of_the_seed_and_its_id():
    keys = row_keys(0, ["a", "b", "a"])
    assert keys[0].tolist() == keys[2].tolist() != keys[1].tolist()
    assert row_keys(1, ["a"]).tolist() != keys[:1].tolist()


def test_an_example_is_answered_the_same_in_any_batch():
    params = jax.tree.map(lambda x: 4 * x if x.ndim > 2 else x, init_params(CONFIG, jax.random.key(0)))
    prompts = [make_prompt(9, 4, seed=i) for i in range(5)]
    ids = [f"id {i}" for i in range(5)]

    def said(order, seed=0):
        keys = row_keys(seed, [ids[i] for i in order])
        asked = {"max_new_tokens": 6, "eos_ids": (), "rows": 4, "sampling": Sampling(1.0, top_p=0.95)}
        found = answer_all(CONFIG, params, [prompts[i] for i in order], keys_N2=keys, **asked)
        return dict(zip(order, (tuple(answer.tokens) for answer in found), strict=True))

    first = said([0, 1, 2, 3, 4])
    assert said([4, 2, 0]) == {i: first[i] for i in (4, 2, 0)}
    assert said([0, 1, 2, 3, 4], seed=1) != first
    assert len(set(first.values())) == 5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -1.0}, "temperature: expected 0 or more, found -1.0"),
        ({"top_k": -1}, "top_k: expected 0 or more, found -1"),
        ({"top_p": 0.0}, "top_p: expected above 0, at most 1, found 0.0"),
    ],
)
def test_settings_out_of_range_are_named(setting, message):
    with pytest.raises(SamplingError, match=message):
        Sampling(**setting)
