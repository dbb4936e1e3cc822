"""The training program of a config: which parameters train, and the one jitted step, for `train` and `umit compile`."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from umit_jax.model.config import ModelConfig
from umit_jax.model.lora import Lora, trainable
from umit_jax.model.param import abstract_params
from umit_jax.train import optimizer as optimizers
from umit_jax.train.state import TrainState, abstract_state
from umit_jax.train.step import Compute, make_step


class Program(NamedTuple):
    """model_config: with the config's LoRA. abstract: the state's shapes, dtypes and shardings. step: see make_step."""

    model_config: ModelConfig
    optimizer: optax.GradientTransformation
    abstract: TrainState
    step: jax.stages.Wrapped


def build(config: ml_collections.ConfigDict, model_config: ModelConfig, mesh: Mesh) -> Program:
    """The program of a training config on a mesh. Raises errors of configuration that name the key."""
    model_config = dataclasses.replace(model_config, lora=Lora.from_config(config.lora))
    paths = flatten_dict(abstract_params(model_config), sep="/").keys()
    adapters_and_full = None if model_config.lora is None else trainable(model_config)
    trained, frozen = optimizers.multipliers(paths, config.optimizer.patterns, adapters_and_full)
    rate = optimizers.schedule(config.optimizer, config.steps)
    optimizer = optimizers.adamw(config.optimizer, rate, trained)
    compute = Compute(jnp.dtype(config.compute_dtype), config.remat, config.loss_chunk, config.attention)
    abstract = abstract_state(model_config, mesh, optimizer, frozen, compute.dtype)
    return Program(model_config, optimizer, abstract, make_step(model_config, abstract, optimizer, rate, mesh, compute))
