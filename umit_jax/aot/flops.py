"""Model FLOPs of a training step: what the mathematics needs, whatever the compiler computes twice.

A product with a kernel costs 2 FLOPs per weight and token forward, 2 for the kernel's gradient where it trains, and 2
for its input's gradient where something in the same part or before it trains. Attention costs 4 S T H per head forward
and twice that backward: in text over half the square (causal), in vision over images as large as they may be. Rows
count as full, because how full they are is the data's.
"""

import math
from collections.abc import Collection

from flax.traverse_util import flatten_dict

from umit_jax.model.config import ModelConfig
from umit_jax.model.param import abstract_params

_PRODUCTS = ("kernel", "kernel_q", "lora_a", "lora_b")


def model_flops(
    config: ModelConfig, frozen: Collection[str], *, rows: int, tokens: int, patches: int, image_patches: int
) -> dict[str, float]:
    """FLOPs of one global step by part: vision, projector, decoder, head, vision_attention, decoder_attention.

    frozen: paths of the parameters that do not train. image_patches: patches of the largest image.
    """
    shapes = {path: x.shape for path, x in flatten_dict(abstract_params(config), sep="/").items()}
    head = "decoder/embed/embedding" if config.tied_head else "decoder/head/kernel"
    part_of = {path: "head" if path == head and not config.tied_head else path.split("/")[0] for path in shapes}
    counts = {"vision": rows * patches, "projector": rows * patches // 4, "decoder": rows * tokens}
    counts["head"] = counts["decoder"]
    parts: dict[str, float] = dict.fromkeys(counts, 0.0)
    flows = dict.fromkeys(counts, False)
    for part in counts:  # from the pixels to the loss: once something trains, gradients reach everything after it
        trains = any(part_of[path] == part and path not in frozen for path in shapes)
        flows[part] = trains or any(flows.values())
    for path, shape in shapes.items():
        part = "head" if path == head else part_of[path]
        if path == head or path.split("/")[-1] in _PRODUCTS:
            passes = 1 + (path not in frozen) + flows[part]
            parts[part] += 2.0 * passes * math.prod(shape) * counts[part]
    vision, text = config.vision, config.text
    seen = min(image_patches, patches)
    squares: dict[str, float] = {"vision": rows * patches * seen * vision.width * vision.layers}
    squares["decoder"] = rows * tokens * tokens / 2 * text.width * text.layers
    for name, square in squares.items():
        parts[f"{name}_attention"] = 4.0 * square * (3 if flows[name] else 1)
    return parts
