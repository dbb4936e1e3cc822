"""Stage 2, instruction tuning on the five tasks with the vision tower frozen (paper section 3)."""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    if arg:
        raise ValueError(f"stage2_instruct: takes no argument, found {arg!r}")
    config = common.train()
    config.data.tasks = ("vqa", "report", "classification", "detection", "landmark")
    config.optimizer.patterns = (("vision/.*", None), (".*", 1.0))
    return config
