import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train.toy import toy_config
from umit_jax.train.optimizer import OptimizerError, adamw, multipliers, schedule

PATHS = ("vision/fc/kernel", "vision/fc/bias", "projector/fc/kernel", "decoder/embed/embedding", "decoder/norm/scale")


def settings(**changes):
    config = toy_config().optimizer
    config.update(warmup_steps=0, schedule="constant", clip_norm=0.0, weight_decay=0.0, learning_rate=0.1)
    config.update(changes)
    return config


def test_the_first_matching_pattern_decides():
    trained, frozen = multipliers(PATHS, (("vision/.*bias", 0.5), ("vision/", None), ("decoder/embed", 0.1)))
    assert trained == {
        "vision/fc/bias": 0.5,
        "projector/fc/kernel": 1.0,
        "decoder/embed/embedding": 0.1,
        "decoder/norm/scale": 1.0,
    }
    assert frozen == {"vision/fc/kernel"}


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ((("visoin/.*", None),), "optimizer.patterns[0] 'visoin/.*': decides no parameter: paths start with decoder"),
        (
            (("vision/.*", None), ("vision/fc/.*", 0.1)),
            "optimizer.patterns[1] 'vision/fc/.*': decides no parameter: ear",
        ),
        ((("vision/(", None),), "optimizer.patterns[0] 'vision/(': not a regular expression"),
        (((".*", None),), "optimizer.patterns: every parameter is frozen"),
    ],
)
def test_patterns_that_do_nothing_are_refused_by_name(patterns, message):
    with pytest.raises(OptimizerError, match=re.escape(message)):
        multipliers(PATHS, patterns)


def test_warm_up_is_linear_and_cosine_ends_at_the_final_fraction():
    rate = schedule(settings(schedule="cosine", warmup_steps=4, learning_rate=1.0, final_fraction=0.1), 24)
    np.testing.assert_allclose([rate(i) for i in range(4)], [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose([rate(4), rate(14), rate(24), rate(99)], [1.0, 0.55, 0.1, 0.1], rtol=1e-6)
    falling = [float(rate(i)) for i in range(4, 25)]
    assert falling == sorted(falling, reverse=True)


def test_a_warm_up_longer_than_the_run_is_its_first_part():
    np.testing.assert_allclose(schedule(settings(schedule="cosine", warmup_steps=100), 10)(9), 0.01, rtol=1e-6)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(OptimizerError, match=r"optimizer.schedule: expected cosine \| constant, found 'cosin'"):
        schedule(settings(schedule="cosin"), 10)


def tree(value=1.0):
    return {
        "decoder": {
            "fc": {"kernel": jnp.full(4, value), "bias": jnp.full(2, value)},
            "norm": {"scale": jnp.full(2, value)},
        }
    }


def update(config, trained, gradients, params):
    optimizer = adamw(config, schedule(config, 10), trained)
    return optimizer.update(gradients, optimizer.init(params), params)[0]


TRAINED = {"decoder/fc/kernel": 0.5, "decoder/fc/bias": 1.0, "decoder/norm/scale": 2.0}


def test_updates_are_scaled_by_path():
    fc, norm = update(settings(), TRAINED, tree(3.0), tree())["decoder"].values()
    np.testing.assert_allclose(fc["kernel"], -0.05, rtol=1e-6)  # Adam's first step has size 1
    np.testing.assert_allclose(fc["bias"], -0.1, rtol=1e-6)
    np.testing.assert_allclose(norm["scale"], -0.2, rtol=1e-6)


def test_weight_decay_leaves_norms_and_biases_alone():
    fc, norm = update(settings(weight_decay=0.1), TRAINED, tree(0.0), tree(2.0))["decoder"].values()
    np.testing.assert_allclose(fc["kernel"], -0.1 * 0.5 * 0.1 * 2.0, rtol=1e-6)
    assert not np.any(fc["bias"])
    assert not np.any(norm["scale"])


def test_it_equals_optax_adamw_over_ten_clipped_steps():
    config = settings(weight_decay=0.1, clip_norm=1.0, schedule="cosine", warmup_steps=3, b1=0.8, b2=0.9)
    trained = dict.fromkeys(TRAINED, 1.0)
    rate = schedule(config, 10)
    ours = adamw(config, rate, trained)
    decayed = {"decoder": {"fc": {"kernel": True, "bias": False}, "norm": {"scale": False}}}
    theirs = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(rate, b1=0.8, b2=0.9, weight_decay=0.1, mask=decayed)
    )
    a = b = tree()
    state_a, state_b = ours.init(a), theirs.init(b)
    for i in range(10):
        gradients = jax.tree.map(lambda x, i=i: jnp.sin(3.0 * i + jnp.arange(x.size)), a)
        step_a, state_a = ours.update(gradients, state_a, a)
        step_b, state_b = theirs.update(gradients, state_b, b)
        a, b = optax.apply_updates(a, step_a), optax.apply_updates(b, step_b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), a, b)
