import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.train.toy import FROZEN_TOWER, MODEL, toy_batch, toy_config
from umit_jax.batch import TASKS
from umit_jax.model.param import abstract_params, bind
from umit_jax.parallel.mesh import global_batch, make_mesh
from umit_jax.train import optimizer as optimizers
from umit_jax.train.state import TrainState, abstract_state, create, merge
from umit_jax.train.step import Compute, make_step


@functools.cache
def build(frozen_tower: bool):
    """(mesh, abstract state, jitted step, new state on the host) on one device."""
    mesh = make_mesh({}, jax.devices()[:1])
    config = toy_config().optimizer
    paths = flatten_dict(abstract_params(MODEL), sep="/").keys()
    trained, frozen = optimizers.multipliers(paths, FROZEN_TOWER if frozen_tower else ())
    rate = optimizers.schedule(config, 6)
    optimizer = optimizers.adamw(config, rate, trained)
    abstract = abstract_state(MODEL, mesh, optimizer, frozen, jnp.float32)
    step = make_step(MODEL, abstract, optimizer, rate, mesh, Compute(loss_chunk=8))
    return mesh, abstract, step, jax.device_get(create(MODEL, abstract, optimizer, seed=0))


def start(frozen_tower: bool):
    mesh, abstract, step, state = build(frozen_tower)
    return mesh, step, jax.device_put(state, jax.tree.map(lambda x: x.sharding, abstract))


def reference_nll(state: TrainState, batch) -> np.ndarray:
    """-log p(target) with all logits at once."""
    model = bind(MODEL, merge(state.params, state.frozen))
    logits = model.hidden(batch, attention="xla") @ model.head_VD().T
    return -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), batch.targets_BS[..., None], -1)[..., 0]


def test_the_loss_is_a_weighted_sum_and_its_weight_in_all_and_per_task():
    mesh, step, state = start(frozen_tower=False)
    batch = toy_batch(1)
    batch.weights_BS[1] *= 0.5
    nll = reference_nll(state, batch)
    _, metrics = step(state, global_batch(mesh, batch))
    np.testing.assert_allclose(metrics["loss_sum"], np.sum(nll * batch.weights_BS), rtol=1e-5)
    np.testing.assert_allclose(metrics["weight"], np.sum(batch.weights_BS), rtol=1e-6)
    for task in range(len(TASKS)):
        weights = np.where(batch.tasks_BS == task, batch.weights_BS, 0)
        np.testing.assert_allclose(metrics["loss_sum_T"][task], np.sum(nll * weights), rtol=1e-5)
        np.testing.assert_allclose(metrics["weight_T"][task], np.sum(weights), rtol=1e-6)
    assert int(metrics["tokens"]) == np.sum(batch.segments_BS > 0)
    assert int(metrics["patches"]) == np.sum(batch.patch_segments_BP > 0)


def test_a_batch_without_weight_moves_nothing_but_the_decay():
    mesh, step, state = start(frozen_tower=False)
    before = jax.device_get(state.params)
    batch = toy_batch(1)
    batch.weights_BS[:] = 0
    state, metrics = step(state, global_batch(mesh, batch))
    assert float(metrics["grad_norm"]) == 0.0
    rate, decay = float(metrics["learning_rate"]), toy_config().optimizer.weight_decay
    np.testing.assert_allclose(
        state.params["decoder"]["embed"]["embedding"],
        before["decoder"]["embed"]["embedding"] * (1 - rate * decay),
        rtol=1e-5,
    )
    np.testing.assert_array_equal(state.params["decoder"]["norm"]["scale"], before["decoder"]["norm"]["scale"])


@pytest.mark.parametrize("frozen_tower", [False, True])
def test_it_compiles_once_and_training_lowers_the_loss(frozen_tower):
    mesh, step, state = start(frozen_tower)
    losses = []
    for _ in range(5):
        state, metrics = step(state, global_batch(mesh, toy_batch(1)))
        losses.append(float(metrics["loss_sum"] / metrics["weight"]))
    assert step._cache_size() == 1
    assert losses[-1] < losses[0] - 0.5
    assert int(state.step) == 5


def test_a_frozen_tower_keeps_every_bit_while_the_rest_trains():
    mesh, step, state = start(frozen_tower=True)
    before = jax.device_get(state)
    for number in range(3):
        state, _ = step(state, global_batch(mesh, toy_batch(number)))
    assert set(state.frozen) == {"vision"}
    jax.tree.map(np.testing.assert_array_equal, state.frozen, before.frozen)
    changed = jax.tree.map(lambda x, y: bool(np.any(np.asarray(x) != y)), state.params, before.params)
    assert all(jax.tree.leaves(changed))


def test_the_state_it_is_given_is_donated():
    mesh, step, state = start(frozen_tower=False)
    step(state, global_batch(mesh, toy_batch(1)))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_a_frozen_tower_costs_no_backward_pass():
    """The tower's forward pass is one of about three passes: without its backward the step loses the other two."""

    def flops(frozen_tower: bool) -> float:
        _, abstract, step, _ = build(frozen_tower)
        return step.lower(abstract, toy_batch(1)).cost_analysis()["flops"]

    def tower_flops() -> float:
        params = abstract_params(MODEL)

        def forward(params, batch):
            model = bind(MODEL, params)
            return model.vision(
                jnp.asarray(batch.patches_BPC, jnp.float32),
                batch.patch_hw_BP2,
                batch.patch_segments_BP,
                remat="none",
                implementation="blockwise",
            )

        return jax.jit(forward).lower(params, toy_batch(1)).cost_analysis()["flops"]

    assert flops(False) - flops(True) > 1.5 * tower_flops()
