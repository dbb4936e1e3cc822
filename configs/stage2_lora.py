"""Stage 2 by adapters: get_config("lora") on a bfloat16 base, "int8" or "nf4" on a quantised one (docs/lora.md).

Every kernel of the decoder gets an adapter, the projector trains whole at a tenth of the learning rate.
config.init_from names the base.
"""

import ml_collections

from configs import stage2_instruct


def get_config(arg: str = "lora") -> ml_collections.ConfigDict:
    if arg not in ("lora", "int8", "nf4"):
        raise ValueError(f"stage2_lora: expected lora, int8 or nf4, found {arg!r}")
    config = stage2_instruct.get_config()
    config.lora.update(rank=16, alpha=32.0, full=("projector/.*",), quantize="none" if arg == "lora" else arg)
    config.optimizer.learning_rate = 1e-4
    config.optimizer.patterns = (("projector/.*", 0.1), (".*", 1.0))
    return config
