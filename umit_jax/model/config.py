"""ModelConfig: the shape of a model, frozen and hashable, and its Hugging Face config.json.

| form read            | where the decoder's numbers are | rope                                      |
| hub (flat)           | top level                       | rope_theta, rope_scaling{type: mrope}     |
| transformers 5       | text_config                     | text_config.rope_parameters{rope_theta}   |

The flat form is written: every transformers that knows the family reads it. The decoder is the same in all families;
the vision tower's numbers are the family's own class (model/families.py). image_mean and image_std are part of the
model, because pixels are normalised on the device; they travel as two extra keys of config.json.
"""

import abc
import dataclasses
import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from umit_jax.model.lora import Lora

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ConfigError(ValueError):
    """A model configuration that cannot be used; the message names the field."""


def require(ok: bool, field: str, expected: Any, found: Any) -> None:
    if not ok:
        raise ConfigError(f"model config: {field}: expected {expected}, found {found!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig(abc.ABC):
    """What every vision tower has: `layers` blocks of width `width`. Each family adds its own numbers, and how they are
    spelled in the vision_config of config.json."""

    layers: int
    width: int
    heads: int
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    channels: int = 3

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def patch_values(self) -> int:
        """C: numbers in one patch, (channel, time, y, x) order."""
        return self.channels * self.temporal_patch_size * self.patch_size**2

    def __post_init__(self) -> None:
        require(self.width % self.heads == 0, "vision.width", f"a multiple of {self.heads} heads", self.width)
        require(self.head_dim % 4 == 0, "vision.width", "a head size that is a multiple of 4", self.head_dim)
        require(self.merge_size == 2, "vision.merge_size", 2, self.merge_size)

    @classmethod
    @abc.abstractmethod
    def from_hf(cls, vision: Mapping[str, Any], text_width: int) -> Self:
        """From the vision_config of a config.json. Raises ConfigError, also where its output is not text_width wide."""

    @abc.abstractmethod
    def to_hf(self, text_width: int) -> dict[str, Any]:
        """The vision_config of config.json; from_hf reads it back unchanged."""

    @staticmethod
    def shared_from_hf(vision: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that every family spells the same in vision_config: all of this class but width."""
        return {
            "layers": get_value(vision, "depth", "vision_config."),
            "heads": get_value(vision, "num_heads", "vision_config."),
            "patch_size": vision.get("patch_size", 14),
            "temporal_patch_size": vision.get("temporal_patch_size", 2),
            "merge_size": vision.get("spatial_merge_size", 2),
            "channels": vision.get("in_channels", vision.get("in_chans", 3)),
        }

    def shared_to_hf(self) -> dict[str, Any]:
        return {
            "depth": self.layers,
            "num_heads": self.heads,
            "patch_size": self.patch_size,
            "temporal_patch_size": self.temporal_patch_size,
            "spatial_merge_size": self.merge_size,
            "in_channels": self.channels,
            "in_chans": self.channels,
        }

    def host_numbers(self) -> dict[str, Any]:
        """What the host must know to cut images for this tower, as fields of data_pipelines.image.Processing."""
        return {"patch_size": self.patch_size, "temporal": self.temporal_patch_size, "merge": self.merge_size}


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The decoder: grouped-query attention (`heads` share `kv_heads`), gated MLP of `mlp_size`."""

    vocab_size: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    mlp_size: int
    mrope_section: tuple[int, ...]
    rope_theta: float = 1e6
    norm_eps: float = 1e-6
    max_positions: int = 32768

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    def __post_init__(self) -> None:
        require(self.width % self.heads == 0, "text.width", f"a multiple of {self.heads} heads", self.width)
        require(self.heads % self.kv_heads == 0, "text.heads", f"a multiple of {self.kv_heads} kv_heads", self.heads)
        half = self.head_dim // 2
        ok = self.head_dim % 2 == 0 and sum(self.mrope_section) == half
        require(ok, "text.mrope_section", f"numbers that sum to half the head size, {half}", self.mrope_section)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    vision: VisionConfig
    text: TextConfig
    tied_head: bool
    model_type: str = "qwen2_vl"  # a key of families.FAMILIES
    image_token_id: int = 151655
    video_token_id: int = 151656
    vision_start_token_id: int = 151652
    vision_end_token_id: int = 151653
    bos_token_id: int = 151643
    eos_token_id: int = 151645
    image_mean: tuple[float, ...] = CLIP_MEAN
    image_std: tuple[float, ...] = CLIP_STD
    lora: "Lora | None" = None  # of a run, not of the model: no config.json has it

    def __post_init__(self) -> None:
        for field in ("image_mean", "image_std"):
            found = getattr(self, field)
            require(len(found) == self.vision.channels, field, f"{self.vision.channels} numbers", found)

    @classmethod
    def from_dict(cls, size: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> "ModelConfig":
        """From nested numbers as in configs/sizes.py, with `overrides` of the same shape on top of them.

        An override may be nested ({"text": {"layers": 2}}) or dotted ({"text.layers": 2}). An unknown name raises
        ConfigError naming the nearest known one.
        """
        merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in size.items()}
        for key, value in (overrides or {}).items():
            group, _, field = key.partition(".")
            values = {field: value} if field else value
            if isinstance(values, Mapping):
                merged.setdefault(group, {})
                require(isinstance(merged[group], dict), group, "one value", values)
                merged[group].update(values)
            else:
                merged[group] = value
        parts = {"vision": _family(merged.get("model_type", cls.model_type)).vision, "text": TextConfig}
        fields = {k: _build(parts[k], v, f"{k}.") if k in parts else v for k, v in merged.items()}
        return _build(cls, fields, "")

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "ModelConfig":
        """From the content of a Hugging Face config.json, flat or nested.

        Raises ConfigError for another architecture, a missing number, or an option this model does not have.
        """
        family = _family(config.get("model_type"))
        text, vision = config.get("text_config") or config, config.get("vision_config") or {}
        rope = {"rope_theta": text.get("rope_theta"), **(text.get("rope_parameters") or text.get("rope_scaling") or {})}
        _check_supported(text, rope)
        optional = {key: config[key] for key in _TOKENS if config.get(key) is not None}
        ends = {**config, **{key: value for key, value in text.items() if value is not None}}
        optional |= {key: ends[key] for key in ("bos_token_id", "eos_token_id") if isinstance(ends.get(key), int)}
        optional |= {key: tuple(config[key]) for key in ("image_mean", "image_std") if config.get(key)}
        heads = get_value(text, "num_attention_heads")
        return cls(
            vision=family.vision.from_hf(vision, get_value(text, "hidden_size")),
            text=TextConfig(
                vocab_size=get_value(text, "vocab_size"),
                layers=get_value(text, "num_hidden_layers"),
                width=get_value(text, "hidden_size"),
                heads=heads,
                kv_heads=text.get("num_key_value_heads") or heads,
                mlp_size=get_value(text, "intermediate_size"),
                mrope_section=tuple(get_value(rope, "mrope_section", "rope_scaling.")),
                rope_theta=float(get_value(rope, "rope_theta")),
                norm_eps=get_value(text, "rms_norm_eps"),
                max_positions=text.get("max_position_embeddings", 32768),
            ),
            tied_head=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
            model_type=family.model_type,
            **optional,
        )

    def to_hf(self) -> dict[str, Any]:
        """The content of config.json in the hub's flat form; from_hf reads it back unchanged."""
        text = self.text
        return {
            "architectures": [_family(self.model_type).architecture],
            "model_type": self.model_type,
            "dtype": "float32",
            **{key: getattr(self, key) for key in (*_TOKENS, "bos_token_id", "eos_token_id")},
            "vocab_size": text.vocab_size,
            "num_hidden_layers": text.layers,
            "hidden_size": text.width,
            "num_attention_heads": text.heads,
            "num_key_value_heads": text.kv_heads,
            "intermediate_size": text.mlp_size,
            "hidden_act": "silu",
            "rope_theta": text.rope_theta,
            "rope_scaling": {"type": "mrope", "mrope_section": list(text.mrope_section)},
            "rms_norm_eps": text.norm_eps,
            "max_position_embeddings": text.max_positions,
            "use_sliding_window": False,
            "tie_word_embeddings": self.tied_head,
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
            "vision_config": self.vision.to_hf(text.width),
        }


_TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def get_value(values: Mapping[str, Any], key: str, prefix: str = "") -> Any:
    require(values.get(key) is not None, prefix + key, "a value", values.get(key))
    return values[key]


def _family(model_type: Any) -> Any:
    from umit_jax.model import families  # made of the models, which are made of this file's configs

    return families.named(model_type)


def _check_supported(text: Mapping[str, Any], rope: Mapping[str, Any]) -> None:
    """Options of the Hugging Face classes that change the computation and are not built here."""
    require(not text.get("use_sliding_window"), "use_sliding_window", False, text.get("use_sliding_window"))
    act = text.get("hidden_act", "silu")
    require(act == "silu", "hidden_act", "silu", act)
    kind = rope.get("rope_type", rope.get("type"))
    if kind == "default":  # transformers writes "default" beside an mrope_section, or type: mrope beside it
        kind = rope.get("type", "mrope")
    require(kind in ("mrope", "default"), "rope_scaling.type", "mrope", kind)


def _build(cls: Any, values: Mapping[str, Any], prefix: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls) if field.name != "lora"}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0)
            raise ConfigError(f"model config: unknown name {prefix}{key}; the nearest known one is {prefix}{near[0]}")
    required = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    for name in required:
        require(name in values, prefix + name, "a value", None)
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
