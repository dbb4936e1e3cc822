"""Where a run starts from, and goes back to: its newest checkpoint, else the parameters it was given."""

import dataclasses
from collections.abc import Callable
from typing import Any

import ml_collections
import optax

from umit_jax.model.config import ModelConfig
from umit_jax.train.base import Base
from umit_jax.train.checkpoint import Checkpointer
from umit_jax.train.state import Params, TrainState, create


@dataclasses.dataclass(frozen=True)
class Start:
    """init_params: gives the first parameters for a tree of shardings; None draws them. base: of a LoRA run."""

    config: ml_collections.ConfigDict
    model_config: ModelConfig
    checkpoints: Checkpointer
    abstract: TrainState
    optimizer: optax.GradientTransformation
    init_params: Callable[[Params], Params] | None
    base: Base | None

    @property
    def _below(self) -> Base | None:
        return self.base if self.model_config.lora is not None else None

    def named(self) -> dict[str, Any]:
        """What the checkpoints of a LoRA run say of its base; {} for another run."""
        return {} if self._below is None else self._below.record(self.model_config)

    def state(self) -> tuple[TrainState, dict[str, Any]]:
        """The state, and the data item it was saved with ({} for a new run)."""
        model_config, abstract, checkpoints, below = self.model_config, self.abstract, self.checkpoints, self._below
        if checkpoints.latest is None:
            seed = self.config.seed
            load = self.init_params if below is None else (lambda _: below.start(model_config, abstract, seed))
            return create(model_config, abstract, self.optimizer, seed, load), {}
        state, data = checkpoints.restore(abstract if below is None else abstract._replace(frozen={}))
        if below is not None:
            path = checkpoints.directory / str(checkpoints.latest)
            state = state._replace(frozen=below.resume(model_config, abstract, path, data))
        return state, data
