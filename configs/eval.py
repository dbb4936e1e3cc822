"""Evaluation on held-out records: which shards, which tasks, how many tokens an answer may take."""

import ml_collections


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    if arg:
        raise ValueError(f"eval: takes no argument, found {arg!r}")
    return ml_collections.ConfigDict(
        {
            "seed": 0,
            "sources": (),  # (shard directory, ...)
            "split": "test",
            "baseline_split": "train",  # what the naive baseline learns from
            "tasks": ("vqa", "report", "classification", "detection", "landmark"),
            "limit": 0,  # records per source, chosen by a hash of their ids; 0 takes all
            "rows": 32,  # prompts generated together, over all devices
            "compute_dtype": "float32",  # of weights and activations; bfloat16 on accelerators
            "option_scores": True,  # the likelihood of each option, where the truth is one
            "stop": (),  # strings that end an answer, as end tokens do
            "sampling": {"temperature": 0.0, "top_k": 0, "top_p": 1.0},  # temperature 0: the likeliest token
            "max_new_tokens": {
                "vqa": 32,
                "report": 256,
                "classification": 24,
                "detection": 128,
                "landmark": 24,
            },
            # report.html: examples and pictures in it, taken evenly (0 all, -1 none), and the longest side of a picture
            "report": {"examples": 20000, "pictures": 2000, "side": 1024},
            "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        }
    )
