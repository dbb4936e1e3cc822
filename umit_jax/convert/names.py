"""Names and kinds of every parameter here and in a Hugging Face file, one table a family for both directions.

"{}" in a name is the layer; here all layers are one array with a leading axis. What the kinds do to a tensor is in
keymap.py. The names are those on disk (the hub's).
"""

from typing import NamedTuple


class Entry(NamedTuple):
    path: str
    hf: str
    kind: str
    inputs: int = 1  # input axes of a linear kernel here


def _linear(path: str, hf: str, *, bias: bool, inputs: int = 1) -> list[Entry]:
    weight = Entry(f"{path}/kernel", f"{hf}.weight", "linear", inputs)
    return [weight, Entry(f"{path}/bias", f"{hf}.bias", "vector")] if bias else [weight]


def _norm(path: str, hf: str, *, bias: bool) -> list[Entry]:
    scale = Entry(f"{path}/scale", f"{hf}.weight", "vector")
    return [scale, Entry(f"{path}/bias", f"{hf}.bias", "vector")] if bias else [scale]


_BLOCK, _LAYER = ("vision/blocks", "visual.blocks.{}"), ("decoder/layers", "model.layers.{}")

_DECODER: tuple[Entry, ...] = (
    Entry("decoder/embed/embedding", "model.embed_tokens.weight", "table"),
    *_norm(f"{_LAYER[0]}/norm1", f"{_LAYER[1]}.input_layernorm", bias=False),
    *_linear(f"{_LAYER[0]}/attn/q", f"{_LAYER[1]}.self_attn.q_proj", bias=True),
    *_linear(f"{_LAYER[0]}/attn/k", f"{_LAYER[1]}.self_attn.k_proj", bias=True),
    *_linear(f"{_LAYER[0]}/attn/v", f"{_LAYER[1]}.self_attn.v_proj", bias=True),
    *_linear(f"{_LAYER[0]}/attn/o", f"{_LAYER[1]}.self_attn.o_proj", bias=False, inputs=2),
    *_norm(f"{_LAYER[0]}/norm2", f"{_LAYER[1]}.post_attention_layernorm", bias=False),
    *_linear(f"{_LAYER[0]}/mlp/gate", f"{_LAYER[1]}.mlp.gate_proj", bias=False),
    *_linear(f"{_LAYER[0]}/mlp/up", f"{_LAYER[1]}.mlp.up_proj", bias=False),
    *_linear(f"{_LAYER[0]}/mlp/down", f"{_LAYER[1]}.mlp.down_proj", bias=False),
    *_norm("decoder/norm", "model.norm", bias=False),
    Entry("decoder/head/kernel", "lm_head.weight", "table"),  # untied models only
)

QWEN2_VL: tuple[Entry, ...] = (
    Entry("vision/patch_embed/kernel", "visual.patch_embed.proj.weight", "patch"),
    *_norm(f"{_BLOCK[0]}/norm1", f"{_BLOCK[1]}.norm1", bias=True),
    *_linear(f"{_BLOCK[0]}/attn/qkv", f"{_BLOCK[1]}.attn.qkv", bias=True),
    *_linear(f"{_BLOCK[0]}/attn/proj", f"{_BLOCK[1]}.attn.proj", bias=True, inputs=2),
    *_norm(f"{_BLOCK[0]}/norm2", f"{_BLOCK[1]}.norm2", bias=True),
    *_linear(f"{_BLOCK[0]}/mlp/fc1", f"{_BLOCK[1]}.mlp.fc1", bias=True),
    *_linear(f"{_BLOCK[0]}/mlp/fc2", f"{_BLOCK[1]}.mlp.fc2", bias=True),
    *_norm("projector/norm", "visual.merger.ln_q", bias=True),
    *_linear("projector/fc1", "visual.merger.mlp.0", bias=True),
    *_linear("projector/fc2", "visual.merger.mlp.2", bias=True),
    *_DECODER,
)

QWEN2_5_VL: tuple[Entry, ...] = (
    Entry("vision/patch_embed/kernel", "visual.patch_embed.proj.weight", "patch"),
    *_norm(f"{_BLOCK[0]}/norm1", f"{_BLOCK[1]}.norm1", bias=False),
    *_linear(f"{_BLOCK[0]}/attn/qkv", f"{_BLOCK[1]}.attn.qkv", bias=True),
    *_linear(f"{_BLOCK[0]}/attn/proj", f"{_BLOCK[1]}.attn.proj", bias=True, inputs=2),
    *_norm(f"{_BLOCK[0]}/norm2", f"{_BLOCK[1]}.norm2", bias=False),
    *_linear(f"{_BLOCK[0]}/mlp/gate", f"{_BLOCK[1]}.mlp.gate_proj", bias=True),
    *_linear(f"{_BLOCK[0]}/mlp/up", f"{_BLOCK[1]}.mlp.up_proj", bias=True),
    *_linear(f"{_BLOCK[0]}/mlp/down", f"{_BLOCK[1]}.mlp.down_proj", bias=True),
    *_norm("projector/norm", "visual.merger.ln_q", bias=False),
    *_linear("projector/fc1", "visual.merger.mlp.0", bias=True),
    *_linear("projector/fc2", "visual.merger.mlp.2", bias=True),
    *_DECODER,
)
