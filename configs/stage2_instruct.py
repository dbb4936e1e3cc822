"""Stage 2, instruction tuning on the five tasks with the vision tower frozen (paper section 3).

get_config() or get_config(preset), one of configs/meshes.py.
"""

import ml_collections

from configs import common, meshes


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    config = common.train()
    config.data.tasks = ("vqa", "report", "classification", "detection", "landmark")
    config.optimizer.patterns = (("vision/.*", None), (".*", 1.0))
    if arg:
        meshes.choose(config, arg)
    return config
