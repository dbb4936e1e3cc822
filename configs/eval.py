"""Evaluation on held-out records: which shards, which tasks, how many tokens an answer may take."""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    if arg:
        raise ValueError(f"eval: takes no argument, found {arg!r}")
    return ml_collections.ConfigDict(
        {
            **common.answers(),
            "seed": 0,
            "split": "test",
            "baseline_split": "train",  # what the naive baseline learns from
            "limit": 0,  # records per source, chosen by a hash of their ids; 0 takes all
            "compute_dtype": "float32",  # of weights and activations; bfloat16 on accelerators
            "option_scores": True,  # the likelihood of each option, where the truth is one
            # report.html: examples and pictures in it, taken evenly (0 all, -1 none), and the longest side of a picture
            "report": {"examples": 20000, "pictures": 2000, "side": 1024},
            "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        }
    )
