"""One optimizer step as a pure function of (state, batch), jitted once with a donated state.

The loss is a (sum, weight) pair up to the last division, so that packing, tasks and any number of devices give the
same number. Only the trained parameters are differentiated: a frozen vision tower is run forward and nothing of it is
kept for a backward pass, which ends before the projector's input (or at it, where the projector trains).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from umit_jax.batch import TASKS, Batch
from umit_jax.model.config import ModelConfig
from umit_jax.model.param import bind
from umit_jax.parallel.activations import activations
from umit_jax.parallel.attention import on_mesh
from umit_jax.parallel.loss import token_nll
from umit_jax.parallel.mesh import batch_sharding, replicated
from umit_jax.train.optimizer import Schedule
from umit_jax.train.state import Params, TrainState, merge, shardings_of

Metrics = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Compute:
    """How the same loss is computed: none of these changes its value beyond rounding."""

    dtype: jnp.dtype = jnp.float32  # type: ignore[assignment]
    remat: str = "none"
    loss_chunk: int = 256
    attention: str = "auto"


def loss_sums(config: ModelConfig, params: Params, batch: Batch, mesh: Mesh, compute: Compute) -> tuple[Any, Any]:
    """(loss_sum_T, weight_T): weighted negative log-likelihood in nats and weight of each task in TASKS."""
    model = bind(config, params)
    attention = on_mesh(compute.attention, mesh)
    x_BSD = model.hidden(
        batch, compute_dtype=compute.dtype, remat=compute.remat, attention=attention, place=activations(mesh)
    )
    nll_BS = token_nll(mesh, x_BSD, model.head_VD(), batch.targets_BS, batch.weights_BS, compute.loss_chunk)
    of_task_BST = batch.tasks_BS[..., None] == jnp.arange(len(TASKS))
    weights_BST = jnp.where(of_task_BST, batch.weights_BS[..., None], 0.0)
    return jnp.sum(nll_BS[..., None] * weights_BST, (0, 1)), jnp.sum(weights_BST, (0, 1))


def make_step(
    config: ModelConfig,
    abstract: TrainState,
    optimizer: optax.GradientTransformation,
    rate: Schedule,
    mesh: Mesh,
    compute: Compute,
) -> jax.stages.Wrapped:
    """The jitted step: (state, batch) -> (next state, metrics). The state given to it is donated.

    Metrics are replicated scalars: loss_sum, weight, learning_rate, grad_norm, tokens and patches that are not
    padding; and per task loss_sum_T, weight_T.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        def loss(params: Params) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            loss_T, weight_T = loss_sums(config, merge(params, state.frozen), batch, mesh, compute)
            weight = jnp.sum(weight_T)
            return jnp.sum(loss_T) / jnp.where(weight > 0, weight, 1.0), (loss_T, weight_T)

        grads, (loss_T, weight_T) = jax.grad(loss, has_aux=True)(state.params)
        updates, opt = optimizer.update(grads, state.opt, state.params)
        metrics = {
            "loss_sum": jnp.sum(loss_T),
            "weight": jnp.sum(weight_T),
            "loss_sum_T": loss_T,
            "weight_T": weight_T,
            "learning_rate": rate(state.step),
            "grad_norm": optax.tree.norm(grads),
            "tokens": jnp.sum(batch.segments_BS > 0),
            "patches": jnp.sum(batch.patch_segments_BP > 0),
        }
        return TrainState(optax.apply_updates(state.params, updates), state.frozen, opt, state.step + 1), metrics

    placed = shardings_of(abstract)
    return jax.jit(
        train_step,
        in_shardings=(placed, batch_sharding(mesh)),
        out_shardings=(placed, replicated(mesh)),
        donate_argnums=0,
    )
