"""The quickstart's runs: a model of a few million parameters that learns from scratch on two CPU cores in minutes.

get_config("stage1") and get_config("stage2"); the shard directories are filled in by `umit quickstart`.
Everything differs from a pod run only in numbers: the code path is the same.
"""

import ml_collections

from configs import stage1_align, stage2_instruct


def get_config(arg: str) -> ml_collections.ConfigDict:
    if arg not in ("stage1", "stage2"):
        raise ValueError(f"quickstart: expected stage1 or stage2, found {arg!r}")
    config = stage1_align.get_config() if arg == "stage1" else stage2_instruct.get_config()
    config.model = "quickstart"
    config.vocab_size = 1024
    config.tokenizer_records = 8000
    config.tokenizer_phrases = True
    config.compute_dtype = "float32"
    config.data.update(
        row_tokens=256,
        row_patches=112 if arg == "stage1" else 160,  # what rows of 256 tokens fill, of captions and of five tasks
        rows=8,
        min_pixels=28 * 28,
        max_pixels=56 * 56,  # four tokens an image, like the paper's MedMNIST
        total_pixels=8 * 56 * 56,
        window=4096,
    )
    config.optimizer.update(learning_rate=3e-3, warmup_steps=20, weight_decay=0.05, b2=0.98)
    config.steps = 900 if arg == "stage1" else 2500
    config.checkpoint_every = 300
    config.keep = 1
    config.loss_chunk = 64
    config.remat = "dots"  # there is memory enough, and computing less twice takes a tenth off a step
    return config
