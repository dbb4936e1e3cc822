"""ModelConfig: the shape of a Qwen2-VL model, frozen and hashable, and its Hugging Face config.json.

| form read            | where the decoder's numbers are | rope                                      |
| hub (flat)           | top level                       | rope_theta, rope_scaling{type: mrope}     |
| transformers 5       | text_config                     | text_config.rope_parameters{rope_theta}   |

The flat form is written: every transformers that knows Qwen2-VL reads it. image_mean and image_std are part of the
model, because pixels are normalised on the device; they travel as two extra keys of config.json.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ConfigError(ValueError):
    """A model configuration that cannot be used; the message names the field."""


def _require(ok: bool, field: str, expected: Any, found: Any) -> None:
    if not ok:
        raise ConfigError(f"model config: {field}: expected {expected}, found {found!r}")


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower: `layers` blocks of width `width`, mlp `mlp_ratio` times as wide."""

    layers: int
    width: int
    heads: int
    mlp_ratio: int = 4
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
        _require(self.width % self.heads == 0, "vision.width", f"a multiple of {self.heads} heads", self.width)
        _require(self.head_dim % 4 == 0, "vision.width", "a head size that is a multiple of 4", self.head_dim)
        _require(self.merge_size == 2, "vision.merge_size", 2, self.merge_size)


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
        _require(self.width % self.heads == 0, "text.width", f"a multiple of {self.heads} heads", self.width)
        _require(self.heads % self.kv_heads == 0, "text.heads", f"a multiple of {self.kv_heads} kv_heads", self.heads)
        half = self.head_dim // 2
        ok = self.head_dim % 2 == 0 and sum(self.mrope_section) == half
        _require(ok, "text.mrope_section", f"numbers that sum to half the head size, {half}", self.mrope_section)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    vision: VisionConfig
    text: TextConfig
    tied_head: bool
    image_token_id: int = 151655
    video_token_id: int = 151656
    vision_start_token_id: int = 151652
    vision_end_token_id: int = 151653
    bos_token_id: int = 151643
    eos_token_id: int = 151645
    image_mean: tuple[float, ...] = CLIP_MEAN
    image_std: tuple[float, ...] = CLIP_STD

    def __post_init__(self) -> None:
        for field in ("image_mean", "image_std"):
            found = getattr(self, field)
            _require(len(found) == self.vision.channels, field, f"{self.vision.channels} numbers", found)

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
                _require(isinstance(merged[group], dict), group, "one value", values)
                merged[group].update(values)
            else:
                merged[group] = value
        parts = {"vision": VisionConfig, "text": TextConfig}
        fields = {k: _build(parts[k], v, f"{k}.") if k in parts else v for k, v in merged.items()}
        return _build(cls, fields, "")

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "ModelConfig":
        """From the content of a Hugging Face config.json, flat or nested.

        Raises ConfigError for another architecture, a missing number, or an option this model does not have.
        """
        kind = config.get("model_type")
        _require(kind == "qwen2_vl", "model_type", "qwen2_vl", kind)
        text, vision = config.get("text_config") or config, config.get("vision_config") or {}
        rope = {"rope_theta": text.get("rope_theta"), **(text.get("rope_parameters") or text.get("rope_scaling") or {})}
        _check_supported(text, vision, rope)
        optional = {key: config[key] for key in _TOKENS if config.get(key) is not None}
        optional |= {key: text[key] for key in ("bos_token_id", "eos_token_id") if isinstance(text.get(key), int)}
        optional |= {key: tuple(config[key]) for key in ("image_mean", "image_std") if config.get(key)}
        heads = _get(text, "num_attention_heads")
        built = cls(
            vision=VisionConfig(
                layers=_get(vision, "depth", "vision_config."),
                width=_get(vision, "embed_dim", "vision_config."),
                heads=_get(vision, "num_heads", "vision_config."),
                mlp_ratio=vision.get("mlp_ratio", 4),
                patch_size=vision.get("patch_size", 14),
                temporal_patch_size=vision.get("temporal_patch_size", 2),
                merge_size=vision.get("spatial_merge_size", 2),
                channels=vision.get("in_channels", vision.get("in_chans", 3)),
            ),
            text=TextConfig(
                vocab_size=_get(text, "vocab_size"),
                layers=_get(text, "num_hidden_layers"),
                width=_get(text, "hidden_size"),
                heads=heads,
                kv_heads=text.get("num_key_value_heads") or heads,
                mlp_size=_get(text, "intermediate_size"),
                mrope_section=tuple(_get(rope, "mrope_section", "rope_scaling.")),
                rope_theta=float(_get(rope, "rope_theta")),
                norm_eps=_get(text, "rms_norm_eps"),
                max_positions=text.get("max_position_embeddings", 32768),
            ),
            tied_head=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
            **optional,
        )
        width = vision.get("hidden_size", built.text.width)
        _require(width == built.text.width, "vision_config.hidden_size", built.text.width, width)
        return built

    def to_hf(self) -> dict[str, Any]:
        """The content of config.json in the hub's flat form; from_hf reads it back unchanged."""
        vision, text = self.vision, self.text
        return {
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "model_type": "qwen2_vl",
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
            "vision_config": {
                "model_type": "qwen2_vl",
                "depth": vision.layers,
                "embed_dim": vision.width,
                "hidden_size": text.width,
                "num_heads": vision.heads,
                "mlp_ratio": vision.mlp_ratio,
                "patch_size": vision.patch_size,
                "temporal_patch_size": vision.temporal_patch_size,
                "spatial_merge_size": vision.merge_size,
                "in_channels": vision.channels,
                "in_chans": vision.channels,
                "hidden_act": "quick_gelu",
            },
        }


_TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def _get(values: Mapping[str, Any], key: str, prefix: str = "") -> Any:
    _require(values.get(key) is not None, prefix + key, "a value", values.get(key))
    return values[key]


def _check_supported(text: Mapping[str, Any], vision: Mapping[str, Any], rope: Mapping[str, Any]) -> None:
    """Options of the Hugging Face classes that change the computation and are not built here."""
    _require(not text.get("use_sliding_window"), "use_sliding_window", False, text.get("use_sliding_window"))
    act = text.get("hidden_act", "silu")
    _require(act == "silu", "hidden_act", "silu", act)
    act = vision.get("hidden_act", "quick_gelu")
    _require(act == "quick_gelu", "vision_config.hidden_act", "quick_gelu", act)
    kind = rope.get("rope_type", rope.get("type"))
    if kind == "default":  # transformers writes "default" beside an mrope_section, or type: mrope beside it
        kind = rope.get("type", "mrope")
    _require(kind in ("mrope", "default"), "rope_scaling.type", "mrope", kind)


def _build(cls: Any, values: Mapping[str, Any], prefix: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0)
            raise ConfigError(f"model config: unknown name {prefix}{key}; the nearest known one is {prefix}{near[0]}")
    required = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    for name in required:
        _require(name in values, prefix + name, "a value", None)
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
