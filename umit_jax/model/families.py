"""The model families: all that differs from one to another, one Family a line of FAMILIES.

Everything that depends on the family asks here: the configuration for the class of its vision numbers, `bind` for the
module, conversion for names, launch for what the host side must know. docs/add_a_model.md walks through another one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from umit_jax.convert import names
from umit_jax.model.config import ModelConfig, VisionConfig, require
from umit_jax.model.qwen2_5_vl import Qwen25VL
from umit_jax.model.qwen2_vl import Qwen2VL
from umit_jax.model.vision import Qwen2VisionConfig
from umit_jax.model.vision_2_5 import Qwen25VisionConfig


@dataclasses.dataclass(frozen=True)
class Family:
    """model_type: as in config.json. architecture, processor: classes of transformers that load an export. vision: the
    vision tower's configuration. module: builds the model. names: every parameter here and on disk. boxes: the frame
    in which the published models speak 2D boxes, 0-1000 or pixels of the resized image.
    """

    model_type: str
    architecture: str
    processor: str
    vision: type[VisionConfig]
    module: Callable[[ModelConfig], Any]
    names: tuple[names.Entry, ...]
    boxes: Literal["norm1000", "resized"]


FAMILIES = {
    family.model_type: family
    for family in (
        Family(
            model_type="qwen2_vl",
            architecture="Qwen2VLForConditionalGeneration",
            processor="Qwen2VLProcessor",
            vision=Qwen2VisionConfig,
            module=Qwen2VL,
            names=names.QWEN2_VL,
            boxes="norm1000",
        ),
        Family(
            model_type="qwen2_5_vl",
            architecture="Qwen2_5_VLForConditionalGeneration",
            processor="Qwen2_5_VLProcessor",
            vision=Qwen25VisionConfig,
            module=Qwen25VL,
            names=names.QWEN2_5_VL,
            boxes="resized",
        ),
    )
}


def named(model_type: Any) -> Family:
    """The family of a config.json's model_type. Raises ConfigError for one that is not built here."""
    known = isinstance(model_type, str) and model_type in FAMILIES
    require(known, "model_type", " | ".join(FAMILIES), model_type)
    return FAMILIES[model_type]


def of(config: ModelConfig) -> Family:
    return named(config.model_type)


def host_numbers(config: ModelConfig) -> dict[str, Any]:
    """What the host side must know of a model, as fields of data_pipelines.image.Processing."""
    return {"boxes": of(config).boxes, **config.vision.host_numbers()}
