"""Stage 1, feature alignment: captions and image-to-image comparison (paper section 3).

get_config("full") trains everything, as the paper does; get_config("projector") trains the projector alone. Either may
be followed by a preset of configs/meshes.py: "full,7b@v5e-256".
"""

import ml_collections

from configs import common, meshes


def get_config(arg: str = "full") -> ml_collections.ConfigDict:
    config = common.train()
    config.data.tasks = config.evaluate.tasks = ("caption", "comparison")
    arg, _, preset = arg.partition(",")
    patterns = {"full": ((".*", 1.0),), "projector": (("projector/.*", 1.0), (".*", None))}
    if arg not in patterns:
        raise ValueError(f"stage1_align: expected full or projector, found {arg!r}")
    config.optimizer.patterns = patterns[arg]
    config.optimizer.learning_rate = 1e-5 if arg == "full" else 1e-3
    if preset:
        meshes.choose(config, preset)
    return config
