"""Presets: a model size on a TPU slice, as "7b@v5e-256", or "7b@v5e-256x2" for two slices joined by the data axis.

A config file takes one as its argument, as in configs/stage2_instruct.py:7b@v5e-256. One row of 4096 tokens and 8192
patches for each chip; docs/pods.md has what the compiler says of each. tensor divides the key-value
heads: 2 of the 2b, 4 of the 7b. data is for slices alone, because parameters are copied over it; context is for rows of
other lengths than these.
"""

import ml_collections

MESHES = {
    "2b@v5e-16": {"data": 1, "fsdp": 16, "tensor": 1},
    "2b@v5e-256": {"data": 1, "fsdp": 128, "tensor": 2},
    "7b@v5e-256": {"data": 1, "fsdp": 64, "tensor": 4},
    "7b@v5e-256x2": {"data": 2, "fsdp": 64, "tensor": 4},
    "7b@v6e-256": {"data": 1, "fsdp": 64, "tensor": 4},
    "72b@v5p-512": {"data": 1, "fsdp": 256, "tensor": 1},  # 256 chips: cloud names of v5p count cores
}


def choose(config: ml_collections.ConfigDict, name: str) -> None:
    """Sets model, mesh and rows of a training config."""
    if name not in MESHES:
        raise ValueError(f"preset: expected {' | '.join(MESHES)}, found {name!r}")
    config.model = name.split("@")[0]
    config.mesh.update(MESHES[name])
    config.data.rows = config.mesh.data * config.mesh.fsdp * config.mesh.tensor
