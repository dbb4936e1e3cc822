"""What a LoRA run stands on: the checkpoint its frozen parameters come from, read again at every start.

The run's own checkpoints hold adapters, wholly trained parameters and their optimizer state; they name the base and
its fingerprint. A base is read one parameter at a time, cast or quantised, and dropped: no float copy of it exists.
"""

import dataclasses
import pathlib
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from umit_jax.model.config import ModelConfig
from umit_jax.model.lora import ADAPTER, plan, start_adapter
from umit_jax.model.quantize import quantise
from umit_jax.train.checkpoint import Params
from umit_jax.train.state import TrainState
from umit_jax.train.weights import check_base, fingerprint, open_weights
from umit_jax.train.workdir import absolute


@dataclasses.dataclass(frozen=True)
class Base:
    """checkpoint: a checkpoints/<step> folder."""

    checkpoint: pathlib.Path

    def record(self, config: ModelConfig) -> dict[str, Any]:
        """What a checkpoint of the run says of it: base {path, fingerprint}, lora (the settings)."""
        assert config.lora is not None
        path = absolute(self.checkpoint)
        return {"base": {"path": str(path), "fingerprint": fingerprint(path)}, "lora": config.lora.to_json()}

    def start(self, config: ModelConfig, abstract: TrainState, seed: int) -> Params:
        """All parameters of a new run: the base's in the dtypes of `abstract`, and new adapters."""
        return self._parameters(config, {**_flat(abstract.frozen), **_flat(abstract.params)}, jax.random.key(seed))

    def resume(self, config: ModelConfig, abstract: TrainState, run: pathlib.Path, data: dict[str, Any]) -> Params:
        """The frozen parameters for a state restored from `run`, whose data item is `data`.

        Raises CheckpointError where this is another base than the run started on.
        """
        check_base(run, data, self.checkpoint)
        return self._parameters(config, _flat(abstract.frozen), None)

    def _parameters(self, config: ModelConfig, wanted: dict[str, Any], key: jax.Array | None) -> Params:
        assert config.lora is not None
        decided, kind = plan(config), config.lora.quantize
        weights = open_weights(self.checkpoint, dataclasses.replace(config, lora=None))
        made: dict[str, Any] = {}
        for path, adapter in decided.adapters.items() if key is not None else ():
            for name in ADAPTER:
                own = path.removesuffix("kernel") + name
                like = wanted[own]

                def draw(path: str = own, shape: Any = like.shape, layout: Any = adapter.layout) -> jax.Array:
                    assert key is not None
                    return start_adapter(path, shape, layout, key)

                made[own] = jax.jit(draw, out_shardings=like.sharding)()
        for path, layout in decided.quantised.items():
            places = [wanted[f"{path}_{name}"].sharding for name in ("q", "scale")]
            kernel = weights.read(path, places[0])
            pack = jax.jit(lambda k, layout=layout: quantise(k, kind, layout), out_shardings=tuple(places))
            made[f"{path}_q"], made[f"{path}_scale"] = jax.block_until_ready(pack(kernel))
        for path in sorted(wanted.keys() - made.keys()):  # one order in all processes, which read together
            made[path] = weights.read(path, wanted[path].sharding).astype(wanted[path].dtype)
        return unflatten_dict(made, sep="/")


def _flat(tree: Params) -> dict[str, Any]:
    return flatten_dict(tree, sep="/")
