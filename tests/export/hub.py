"""Random checkpoints in the layout of the hub, written by the safetensors library and by hand, none of our code."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SPECIAL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
]
ID = {name: 256 + i for i, name in enumerate(SPECIAL)}
BF16 = np.dtype(ml_dtypes.bfloat16)
TEXT_WIDTH, HEADS, KV_HEADS, MLP, LAYERS, VOCAB = 48, 4, 2, 80, 3, 288
VISION_WIDTH, VISION_HEADS, DEPTH, RATIO = 32, 2, 2, 2
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def config_json(tied=True, nested=False, dtype="bfloat16") -> dict:
    vision = {
        "depth": DEPTH,
        "embed_dim": VISION_WIDTH,
        "num_heads": VISION_HEADS,
        "mlp_ratio": RATIO,
        "hidden_size": TEXT_WIDTH,
        "in_chans": 3,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "spatial_patch_size": 14,
    }
    text = {
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCAB,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-06,
        "max_position_embeddings": 32768,
        "max_window_layers": 28,
        "sliding_window": 32768,
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
    }
    top = {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "bos_token_id": ID["<|endoftext|>"],
        "eos_token_id": ID["<|im_end|>"],
        "image_token_id": ID["<|image_pad|>"],
        "video_token_id": ID["<|video_pad|>"],
        "vision_start_token_id": ID["<|vision_start|>"],
        "vision_end_token_id": ID["<|vision_end|>"],
        "vision_token_id": ID["<|vision_pad|>"],
        "tie_word_embeddings": tied,
        "hospital_note": {"trained_on": ["ward 7"]},
    }
    if nested:
        rope = {"mrope_section": [1, 2, 3], "rope_theta": 1000000.0, "rope_type": "default", "type": "default"}
        text |= {"model_type": "qwen2_vl_text", "rope_parameters": rope, "tie_word_embeddings": tied, "dtype": dtype}
        return {**top, "dtype": dtype, "text_config": text, "vision_config": vision | {"model_type": "qwen2_vl"}}
    rope = {"type": "mrope", "mrope_section": [1, 2, 3]}
    text |= {"rope_theta": 1000000.0, "rope_scaling": rope}
    return {**top, **text, "torch_dtype": dtype, "transformers_version": "4.41.2", "vision_config": vision}


def shapes(tied=True) -> dict[str, tuple[int, ...]]:
    """Every tensor of the hub's Qwen2-VL, spelled out."""
    head = TEXT_WIDTH // HEADS
    found: dict[str, tuple[int, ...]] = {"visual.patch_embed.proj.weight": (VISION_WIDTH, 3, 2, 14, 14)}
    for i in range(DEPTH):
        block, wide = f"visual.blocks.{i}", VISION_WIDTH * RATIO
        for norm in ("norm1", "norm2"):
            found |= {f"{block}.{norm}.weight": (VISION_WIDTH,), f"{block}.{norm}.bias": (VISION_WIDTH,)}
        for name, out, into in (
            ("attn.qkv", 3 * VISION_WIDTH, VISION_WIDTH),
            ("attn.proj", VISION_WIDTH, VISION_WIDTH),
            ("mlp.fc1", wide, VISION_WIDTH),
            ("mlp.fc2", VISION_WIDTH, wide),
        ):
            found |= {f"{block}.{name}.weight": (out, into), f"{block}.{name}.bias": (out,)}
    merged = 4 * VISION_WIDTH
    found |= {"visual.merger.ln_q.weight": (VISION_WIDTH,), "visual.merger.ln_q.bias": (VISION_WIDTH,)}
    found |= {"visual.merger.mlp.0.weight": (merged, merged), "visual.merger.mlp.0.bias": (merged,)}
    found |= {"visual.merger.mlp.2.weight": (TEXT_WIDTH, merged), "visual.merger.mlp.2.bias": (TEXT_WIDTH,)}
    found |= {"model.embed_tokens.weight": (VOCAB, TEXT_WIDTH), "model.norm.weight": (TEXT_WIDTH,)}
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"{layer}.{norm}.weight"] = (TEXT_WIDTH,)
        for name, out in (("q", HEADS * head), ("k", KV_HEADS * head), ("v", KV_HEADS * head)):
            found |= {f"{layer}.self_attn.{name}_proj.weight": (out, TEXT_WIDTH)}
            found |= {f"{layer}.self_attn.{name}_proj.bias": (out,)}
        found[f"{layer}.self_attn.o_proj.weight"] = (TEXT_WIDTH, HEADS * head)
        found |= {f"{layer}.mlp.gate_proj.weight": (MLP, TEXT_WIDTH), f"{layer}.mlp.up_proj.weight": (MLP, TEXT_WIDTH)}
        found[f"{layer}.mlp.down_proj.weight"] = (TEXT_WIDTH, MLP)
    return found if tied else found | {"lm_head.weight": (VOCAB, TEXT_WIDTH)}


def random_tensors(tied=True, dtype=BF16, seed=0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: (rng.standard_normal(shape) * 0.1).astype(dtype) for name, shape in shapes(tied).items()}


def write_weights(directory: Path, tensors: dict[str, np.ndarray], files: int = 1) -> None:
    """In one file, or cut into several with an index, neighbouring layers in different files."""
    if files == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    where = {name: f"model-{i % files + 1:05d}-of-{files:05d}.safetensors" for i, name in enumerate(names)}
    for file in sorted(set(where.values())):
        save_file({n: tensors[n] for n in names if where[n] == file}, directory / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": where}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False))


def write_tokenizer(directory: Path) -> None:
    """A byte-level tokenizer without merges: 256 bytes and the special tokens, as the hub's Qwen2 files spell one."""
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    tokenizer.save(str(directory / "tokenizer.json"))
    write_json(directory / "vocab.json", vocabulary)
    (directory / "merges.txt").write_text("#version: 0.2\n")
    write_json(directory / "added_tokens.json", ID)
    special = {"additional_special_tokens": SPECIAL, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    write_json(directory / "special_tokens_map.json", special)
    values = {"tokenizer_class": "Qwen2Tokenizer", "model_max_length": 32768, "unk_token": None, "errors": "replace"}
    values |= {"chat_template": TEMPLATE, "clean_up_tokenization_spaces": False, **special}
    write_json(directory / "tokenizer_config.json", values)


def write_companions(directory: Path) -> None:
    write_tokenizer(directory)
    pixels = {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "hospital_setting": 7,
    }
    write_json(directory / "preprocessor_config.json", pixels)
    write_json(directory / "chat_template.json", {"chat_template": TEMPLATE})
    ids = [ID["<|im_end|>"], ID["<|endoftext|>"]]
    generation = {"bos_token_id": ids[1], "pad_token_id": ids[1], "eos_token_id": ids, "do_sample": True, "top_k": 1}
    write_json(directory / "generation_config.json", generation)


def write_model(directory: Path, *, tied=True, dtype=BF16, nested=False, files=1, tensors=None) -> Path:
    directory.mkdir(parents=True)
    named = {"bfloat16": "bfloat16", "float16": "float16", "float32": "float32"}[np.dtype(dtype).name]
    write_json(directory / "config.json", config_json(tied, nested, named))
    write_companions(directory)
    write_weights(directory, random_tensors(tied, dtype) if tensors is None else tensors, files)
    return directory
