"""The model weights of a checkpoint one parameter at a time, whatever kind of checkpoint holds them.

| checkpoint    | holds                                 | a parameter is                                       |
| full          | every parameter, trained and frozen   | read                                                 |
| of a LoRA run | what trained; names its base and the  | the base's; or the run's own, where it trained       |
|               | fingerprint of the base's weights     | whole; or the base's with its adapter merged         |

A base may itself be a LoRA run. The fingerprint is made of the checksums beside the arrays, so that knowing a base
reads none of its weights; each is compared with its checksum when it is read.
"""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from umit_jax.model.config import ModelConfig
from umit_jax.model.lora import ADAPTER, Lora, merge_kernel, plan, trainable
from umit_jax.model.param import abstract_params
from umit_jax.train.checkpoint import CheckpointError, Params, load_params, read_data, read_parameter, saved_parameters
from umit_jax.train.workdir import absolute, noted


class Weights(Protocol):
    """Parameters of a model without LoRA, by path."""

    def read(self, path: str, sharding: Sharding) -> jax.Array:
        """One parameter in the dtype it is saved in. Raises CheckpointError where it is damaged."""
        ...


class SavedWeights:
    """Of the arrays in one checkpoints/<step> folder; `shapes` by path."""

    def __init__(self, checkpoint: pathlib.Path):
        self.checkpoint = absolute(checkpoint)
        self.saved = saved_parameters(self.checkpoint)
        self.checksums: dict[str, int] = read_data(self.checkpoint)["checksums"]
        self.shapes = {path: tuple(like.shape) for path, (_, like) in self.saved.items()}

    def read(self, path: str, sharding: Sharding) -> jax.Array:
        name, like = self.saved[path]
        like = jax.ShapeDtypeStruct(like.shape, like.dtype, sharding=sharding)
        return read_parameter(self.checkpoint, name, like, self.checksums.get(name))


class MergedWeights:
    """A LoRA run's: its own parameters over those of its base. config: with the run's `lora`."""

    def __init__(self, own: SavedWeights, base: Weights, config: ModelConfig):
        self.own, self.base, self.plan = own, base, plan(config)

    def read(self, path: str, sharding: Sharding) -> jax.Array:
        below = self.base.read(path, sharding)
        if path in self.plan.full:
            return self.own.read(path, sharding).astype(below.dtype)
        adapter = self.plan.adapters.get(path)
        if adapter is None:
            return below
        stem, copied = path.removesuffix("kernel"), _copied(sharding)
        pair = [self.own.read(f"{stem}{name}", copied) for name in ADAPTER]
        merged = jax.jit(lambda k, a, b: merge_kernel(k, a, b, adapter), out_shardings=sharding, donate_argnums=0)
        return merged(below, *pair)


def open_weights(checkpoint: pathlib.Path, config: ModelConfig, base: pathlib.Path | None = None) -> Weights:
    """The weights of a checkpoints/<step> folder; config: of the model, without LoRA. base: where the base of a LoRA
    run is now, if it has moved.

    Raises CheckpointError naming a parameter of another model, or a base that is not there or is another one.
    """
    data, own = read_data(checkpoint), SavedWeights(checkpoint)
    config = dataclasses.replace(config, lora=lora_of(data))
    _check_shapes(own, config)
    if config.lora is None:
        return own
    below = base or noted(data["base"]["path"])
    check_base(checkpoint, data, below)
    return MergedWeights(own, open_weights(below, dataclasses.replace(config, lora=None)), config)


def load_weights(
    checkpoint: pathlib.Path,
    config: ModelConfig,
    shardings: Params | None = None,
    dtype: Any = jnp.float32,
    base: pathlib.Path | None = None,
) -> Params:
    """All parameters of a checkpoint, a LoRA run's merged, as load_params gives those of a full one."""
    if lora_of(read_data(checkpoint)) is None:
        return load_params(checkpoint, config, shardings, dtype)
    weights, paths = open_weights(checkpoint, config, base), flatten_dict(abstract_params(config), sep="/")
    one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    places = dict.fromkeys(paths, one) if shardings is None else flatten_dict(shardings, sep="/")
    return unflatten_dict({path: weights.read(path, places[path]).astype(dtype) for path in paths}, sep="/")


def trained_weights(checkpoint: pathlib.Path, config: ModelConfig) -> tuple[ModelConfig, Params]:
    """(config with the run's `lora`, what trained) of a checkpoint of a LoRA run, without its base."""
    config = dataclasses.replace(config, lora=lora_of(read_data(checkpoint)))
    own = SavedWeights(checkpoint)
    _check_shapes(own, config)
    one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return config, unflatten_dict({path: own.read(path, one) for path in own.shapes}, sep="/")


def lora_of(data: dict[str, Any]) -> Lora | None:
    """The LoRA settings in a checkpoint's data item; None for a full checkpoint."""
    return Lora.from_config(data["lora"]) if "base" in data else None


def fingerprint(checkpoint: pathlib.Path) -> str:
    """32 hex digits that differ where any bit of the model's weights does."""
    data = read_data(checkpoint)
    arrays = [
        (path, list(like.shape), str(like.dtype), data["checksums"].get(name))
        for path, (name, like) in sorted(saved_parameters(checkpoint).items())
    ]
    below = [data["base"]["fingerprint"], data["lora"]] if "base" in data else []
    return hashlib.sha256(json.dumps([arrays, below], sort_keys=True).encode()).hexdigest()[:32]


def _check_shapes(own: SavedWeights, config: ModelConfig) -> None:
    """Raises CheckpointError where `own` is not all parameters of the model, or all that a LoRA run trains."""
    expected = {path: like.shape for path, like in flatten_dict(abstract_params(config), sep="/").items()}
    if config.lora is not None:
        expected = {path: expected[path] for path in trainable(config)}
    for path in sorted(own.shapes.keys() | expected.keys()):
        found, wanted = own.shapes.get(path, "nothing"), expected.get(path, "nothing")
        if found != wanted:
            problem = f"checkpoint of another model: {path}: expected {wanted}, found {found}"
            raise CheckpointError(f"{own.checkpoint}: {problem}")


def check_base(run: pathlib.Path, data: dict[str, Any], base: pathlib.Path) -> None:
    """Raises CheckpointError where `base` is not there or not the one that the LoRA run was trained on."""
    if not (base / "data").exists():
        raise CheckpointError(
            f"{run}: the base of this LoRA run is not at {base}: name where it is (--base, or init_from)"
        )
    found, expected = fingerprint(base), data["base"]["fingerprint"]
    if found != expected:
        raise CheckpointError(
            f"{run}: {base} is not the base of this LoRA run: expected weights of fingerprint {expected}, found {found}"
        )


def _copied(sharding: Sharding) -> Sharding:
    return NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else sharding
