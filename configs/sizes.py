"""Model sizes, as numbers for umit_jax.model.config.ModelConfig.from_dict(SIZES[name], overrides).

2b, 7b and 72b are the published Qwen2-VL shapes, qwen2.5-3b, -7b and -72b those of Qwen2.5-VL (the config.json of
Qwen/Qwen2-VL-*-Instruct and Qwen/Qwen2.5-VL-*-Instruct on the Hugging Face hub). tiny and qwen2.5-tiny are for tests,
quickstart for a laptop: these take a small vocabulary; model_config gives any of them the vocabulary and token ids of a
tokenizer.
"""

from typing import Any

from umit_jax.model.config import ConfigError, ModelConfig

_VISION = {"layers": 32, "width": 1280, "heads": 16}
_VISION_2_5 = {**_VISION, "mlp_size": 3420, "full_layers": (7, 15, 23, 31), "window_size": 112, "tokens_per_second": 2}

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vision": {"layers": 2, "width": 32, "heads": 2, "mlp_ratio": 2},
        "text": {
            "vocab_size": 512,
            "layers": 2,
            "width": 64,
            "heads": 4,
            "kv_heads": 2,
            "mlp_size": 96,
            "mrope_section": (2, 3, 3),
        },
        "tied_head": True,
        "bos_token_id": 500,
        "eos_token_id": 501,
        "vision_start_token_id": 502,
        "vision_end_token_id": 503,
        "image_token_id": 504,
        "video_token_id": 505,
    },
    "quickstart": {
        "vision": {"layers": 3, "width": 96, "heads": 3, "mlp_ratio": 3},
        "text": {
            "vocab_size": 2048,
            "layers": 4,
            "width": 128,
            "heads": 4,
            "kv_heads": 2,
            "mlp_size": 384,
            "mrope_section": (4, 6, 6),
            # The w axis of M-RoPE takes the slowest frequencies: at 1e6 they turn by less than 2e-4 a step, far too
            # little to tell the few columns of a small image apart. At 2 the slowest turns by half a radian.
            "rope_theta": 2.0,
        },
        "tied_head": True,
        "bos_token_id": 2040,
        "eos_token_id": 2041,
        "vision_start_token_id": 2042,
        "vision_end_token_id": 2043,
        "image_token_id": 2044,
        "video_token_id": 2045,
    },
    "2b": {
        "vision": _VISION,
        "text": {
            "vocab_size": 151936,
            "layers": 28,
            "width": 1536,
            "heads": 12,
            "kv_heads": 2,
            "mlp_size": 8960,
            "mrope_section": (16, 24, 24),
        },
        "tied_head": True,
    },
    "7b": {
        "vision": _VISION,
        "text": {
            "vocab_size": 152064,
            "layers": 28,
            "width": 3584,
            "heads": 28,
            "kv_heads": 4,
            "mlp_size": 18944,
            "mrope_section": (16, 24, 24),
        },
        "tied_head": False,
    },
    "72b": {
        "vision": _VISION,
        "text": {
            "vocab_size": 152064,
            "layers": 80,
            "width": 8192,
            "heads": 64,
            "kv_heads": 8,
            "mlp_size": 29568,
            "mrope_section": (16, 24, 24),
        },
        "tied_head": False,
    },
}

SIZES |= {
    "qwen2.5-tiny": {
        **SIZES["tiny"],
        "model_type": "qwen2_5_vl",
        # windows of 2x2 vision tokens, so that even a small image has several
        "vision": {"layers": 3, "width": 32, "heads": 2, "mlp_size": 44, "full_layers": (1,), "window_size": 56},
    },
    "qwen2.5-3b": {
        "model_type": "qwen2_5_vl",
        "vision": _VISION_2_5,
        "text": {
            "vocab_size": 151936,
            "layers": 36,
            "width": 2048,
            "heads": 16,
            "kv_heads": 2,
            "mlp_size": 11008,
            "mrope_section": (16, 24, 24),
            "max_positions": 128000,
        },
        "tied_head": True,
    },
    # the decoders of the two larger ones have the shapes of Qwen2-VL's
    "qwen2.5-7b": {
        "model_type": "qwen2_5_vl",
        "vision": _VISION_2_5,
        "text": {**SIZES["7b"]["text"], "max_positions": 128000},
        "tied_head": False,
    },
    "qwen2.5-72b": {
        "model_type": "qwen2_5_vl",
        "vision": {**_VISION_2_5, "mlp_size": 3456},
        "text": {**SIZES["72b"]["text"], "max_positions": 128000},
        "tied_head": False,
    },
}

_TOKENS = {
    "bos_token_id": "<|endoftext|>",
    "eos_token_id": "<|im_end|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
}


def published(name: str, **overrides: Any) -> ModelConfig:
    """A size as it stands above, with overrides as ModelConfig.from_dict takes them."""
    if name not in SIZES:
        raise ConfigError(f"model: expected {' | '.join(SIZES)}, found {name!r}")
    return ModelConfig.from_dict(SIZES[name], overrides)


def model_config(name: str, tokenizer: Any, **overrides: Any) -> ModelConfig:
    """A size for a tokenizer (vocab_size, token_id(text)), with overrides as ModelConfig.from_dict takes them.

    The vocabulary is rounded up to a multiple of 128, so that it divides among devices.
    """
    own = {field: tokenizer.token_id(token) for field, token in _TOKENS.items()}
    own["text.vocab_size"] = -(-tokenizer.vocab_size // 128) * 128
    return published(name, **own | overrides)
