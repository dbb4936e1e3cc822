"""Device meshes by name of the slice, as numbers for umit_jax.parallel.mesh.make_mesh.

-1 takes the devices that are left. fsdp stays at 128: beyond that a shard of a layer has so few rows that the compiler
emulates its all-gathers by all-reduce; tensor is 2 because the 2b size has two key-value heads. Cloud names of v5p
count cores: v5p-512 is 256 chips.
"""

from collections.abc import Mapping

MESHES = {
    "one_host": {"data": 1, "fsdp": -1, "tensor": 1},
    "v5e-256": {"data": 1, "fsdp": -1, "tensor": 2},
    "v6e-256": {"data": 1, "fsdp": -1, "tensor": 2},
    "v5p-512": {"data": 1, "fsdp": -1, "tensor": 2},
}


def mesh_axes(mesh: str | Mapping[str, int]) -> dict[str, int]:
    """Axis sizes of a name in MESHES, or of a mapping as in config.mesh."""
    if not isinstance(mesh, str):
        return dict(mesh)
    if mesh not in MESHES:
        raise ValueError(f"mesh: expected {' | '.join(MESHES)}, found {mesh!r}")
    return dict(MESHES[mesh])
