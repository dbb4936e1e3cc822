"""Stage 1, feature alignment: captions and image-to-image comparison (paper section 3).

get_config("full") trains everything, as the paper does; get_config("projector") trains the projector alone.
"""

import ml_collections

from configs import common


def get_config(arg: str = "full") -> ml_collections.ConfigDict:
    config = common.train()
    config.data.tasks = ("caption", "comparison")
    patterns = {"full": ((".*", 1.0),), "projector": (("projector/.*", 1.0), (".*", None))}
    if arg not in patterns:
        raise ValueError(f"stage1_align: expected full or projector, found {arg!r}")
    config.optimizer.patterns = patterns[arg]
    config.optimizer.learning_rate = 1e-5 if arg == "full" else 1e-3
    return config
