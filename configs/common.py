"""Keys that every training config has, with their defaults; the stage files change what differs.

The paper gives neither learning rates nor batch sizes nor epochs: those here are ours.
"""

from typing import Any

import ml_collections


def data() -> ml_collections.ConfigDict:
    """Where samples come from and how they become packed rows."""
    return ml_collections.ConfigDict(
        {
            "sources": (),  # ((shard directory, weight = times per epoch[, cap = samples per epoch]), ...)
            "root": "",  # folder that the sources are below
            "leave_out": (),  # sources, or folders of sources, of those named above that are not taken
            "temperature": 1.0,  # above 1, small sources come more often than their size says
            "split": "train",
            "tasks": (),  # () takes every task of the sources
            "row_tokens": 4096,
            "row_patches": 8192,
            "rows": 256,  # rows in a global batch
            "min_pixels": 4 * 28 * 28,
            "max_pixels": 602112,  # 768 tokens an image, the paper's evaluation setting
            "total_pixels": 4 * 602112,  # over all media of a sample
            "volume_as": "video",  # video (temporal patch 2) or slices (one image each)
            "oversize": "shrink",  # a sample too large for a row: shrink, drop or error
            "loss_weight": "token",  # token: every answer token weighs 1; sample: every sample does
            "window": 16384,  # samples that are packed together
            "augment": augment(),
            "workers": 0,  # decoding processes; 0 decodes in threads
            "prefetch": 4,  # batches decoded ahead
        }
    )


def augment() -> ml_collections.ConfigDict:
    """Changes of training samples whose targets stay right (docs/augmentation.md), all off. flip, crop, resize,
    intensity and corrupt are the shares of the samples that are drawn for each; what a sample says may refuse it."""
    return ml_collections.ConfigDict(
        {
            "flip": 0.0,
            "crop": 0.0,
            "crop_least": 0.7,  # least part of each side that stays
            "resize": 0.0,
            "resize_least": 0.7,  # least part of each side that the image takes, black around it
            "intensity": 0.0,
            "brightness": 0.1,  # most that is added or taken; white is 1
            "contrast": 0.15,  # most that its factor differs from 1
            "gamma": 0.15,  # most that its logarithm differs from 0
            "noise": 0.02,  # largest standard deviation; white is 1
            "hu_window": 0.1,  # of a CT window's width, most that is cut off at either end
            "corrupt": 0.0,
            "families": (),  # of data_pipelines/corruptions.yaml; () takes all that the modality has
            "severities": (1, 2, 3),
        }
    )


def lora() -> ml_collections.ConfigDict:
    """Adapters beside frozen kernels, off while rank is 0 (docs/lora.md). Patterns match paths of parameters from their
    start; what trains is the adapters and `full`, at the learning rates that optimizer.patterns give their paths."""
    return ml_collections.ConfigDict(
        {
            "rank": 0,
            "alpha": 32.0,
            "rslora": False,  # scale alpha / sqrt(rank), not alpha / rank
            "patterns": ("decoder/layers/.*",),  # kernels that get an adapter: pattern or (pattern, rank, alpha)
            "full": (),  # parameters trained whole, as "projector/.*"
            "quantize": "none",  # none, int8 or nf4: the frozen kernels of quantize_patterns
            "quantize_patterns": ("decoder/layers/.*",),
        }
    )


def answers() -> dict[str, Any]:
    """What is asked of held-out records and how it is answered, by `umit eval` and during training alike."""
    return {
        "sources": (),  # (shard directory, ...)
        "tasks": ("vqa", "report", "classification", "detection", "landmark"),
        "rows": 32,  # prompts generated together, over all devices
        "stop": (),  # strings that end an answer, as end tokens do
        "sampling": {"temperature": 0.0, "top_k": 0, "top_p": 1.0},  # temperature 0: the likeliest token
        "max_new_tokens": {
            "vqa": 32,
            "report": 256,
            "classification": 24,
            "detection": 128,
            "landmark": 24,
            "caption": 128,
            "comparison": 128,
        },
    }


def evaluate() -> ml_collections.ConfigDict:
    """A small evaluation while training, off while every is 0 (docs/evaluate.md). Weights and activations have the
    run's compute_dtype; sources () are those of data.sources."""
    return ml_collections.ConfigDict(
        {
            **answers(),
            "every": 0,  # steps
            "split": "validation",
            "limit": 64,  # records per source, chosen by a hash of their ids; 0 takes all
            "option_scores": False,  # the likelihood of each option, for accuracy_by_likelihood, auc, ece, ..
            "best": "",  # metric, as "vqa/closed_accuracy", whose best step is kept beside the newest ones
        }
    )


def train() -> ml_collections.ConfigDict:
    """A training config without its stage's choices."""
    return ml_collections.ConfigDict(
        {
            "seed": 0,
            "steps": 10_000,
            "epochs": 0.0,  # above 0, steps is what so many epochs take
            "log_every": 1,
            "log_samples": False,
            "checkpoint_every": 500,
            "keep": 3,
            "save_patience": 60.0,  # seconds for which a checkpoint that cannot be written is tried again
            "rollbacks": 3,  # batches that may be left out because loss or gradient were not finite, or jumped on them
            "spike": 3.0,  # a loss jumps that is so many times the largest of the last 64 steps; 0 looks for none
            "watchdog_seconds": 1800.0,  # without a step, after which a run that hangs is ended; 0 waits for ever
            "model": "2b",
            "model_overrides": ml_collections.ConfigDict(),
            "init_from": "",  # workdir or checkpoint whose parameters (not optimizer) this run starts from
            "tokenizer": "",  # directory with tokenizer.json; "" takes init_from's, or trains one on the corpus
            "vocab_size": 16_000,  # of a tokenizer trained here
            "tokenizer_records": 100_000,  # at most so many of each source are its corpus, evenly spaced
            "tokenizer_phrases": False,  # its pieces may hold several words
            "data": data(),
            "optimizer": {
                "learning_rate": 1e-5,
                "warmup_steps": 100,
                "schedule": "cosine",
                "final_fraction": 0.1,
                "weight_decay": 0.01,
                "b1": 0.9,
                "b2": 0.95,
                "clip_norm": 1.0,
                "patterns": ((".*", 1.0),),  # (path pattern, learning-rate multiplier or None = frozen), first match
            },
            "lora": lora(),
            "evaluate": evaluate(),
            "mesh": {"data": 1, "fsdp": -1, "context": 1, "tensor": 1},
            "compute_dtype": "bfloat16",  # float32 on CPU, where bfloat16 is slower
            "remat": "full",  # what is computed twice to save memory: none, dots, attention or full (model/param.py)
            "loss_chunk": 256,  # tokens of a row whose logits exist at once
            "attention": "auto",  # the platform's own kernel: splash (TPU), flash (GPU), blockwise (CPU)
        }
    )
