"""A trained model as the commands need it: parameters, configuration, tokenizer and image processing together."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from data_pipelines import chat_template
from data_pipelines.example import Processing
from data_pipelines.tokenizer import Tokenizer, load_tokenizer
from launch import workdir
from launch.cli import UsageError
from umit_jax.model import families
from umit_jax.model.config import ModelConfig
from umit_jax.model.param import abstract_params, logical_axes
from umit_jax.parallel.rules import shardings
from umit_jax.train.weights import load_weights

if TYPE_CHECKING:
    from jax.sharding import Mesh


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    config: ModelConfig
    params: Any
    tokenizer: Tokenizer
    processing: Processing
    checkpoint: workdir.Checkpoint


def load(
    directory: pathlib.Path,
    flag: str = "--checkpoint",
    base: pathlib.Path | None = None,
    mesh: "Mesh | None" = None,
    dtype: str = "float32",
) -> LoadedModel:
    """The model of a workdir or of one of its checkpoints, parameters in `dtype`, those of a LoRA run merged.

    base: workdir or checkpoint that the base of a LoRA run is now, if it has moved. mesh: parameters go straight into
    its shardings, each process reading its part; without one, to the first device.
    """
    checkpoint = workdir.find(directory, flag)
    below = None if base is None else workdir.find(base, "--base").path
    config, tokenizer, processing = load_companions(checkpoint.model_dir)
    chat_template.check(tokenizer)
    places = None
    if mesh is not None:
        shapes = abstract_params(config)
        places = shardings(mesh, logical_axes(config), shapes)
    params = load_weights(checkpoint.path, config, places, dtype, base=below)
    return LoadedModel(config, params, tokenizer, processing, checkpoint)


def load_companions(model_dir: pathlib.Path) -> tuple[ModelConfig, Tokenizer, Processing]:
    """Everything of a model but its weights. A preprocess.json that cuts images for another model is a UsageError."""
    config = ModelConfig.from_hf(workdir.read_json(model_dir / "config.json"))
    processing = Processing.from_json(workdir.read_json(model_dir / "preprocess.json"))
    for field, wanted in families.host_numbers(config).items():
        found = getattr(processing, field)
        if field != "boxes" and found != wanted:  # boxes are a choice of whoever trained the model
            file = model_dir / "preprocess.json"
            raise UsageError(f"{file}: {field}: expected {wanted!r} for a {config.model_type}, found {found!r}")
    return config, load_tokenizer(model_dir), processing
