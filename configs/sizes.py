"""Model sizes, as numbers for umit_jax.model.config.ModelConfig.from_dict(SIZES[name], overrides).

2b, 7b and 72b are the published Qwen2-VL shapes. tiny is for tests, quickstart for a laptop: both take a small
vocabulary, so a run overrides text.vocab_size and the token ids with those of its own tokenizer.
"""

_VISION = {"layers": 32, "width": 1280, "heads": 16}

SIZES = {
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
