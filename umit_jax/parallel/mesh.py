"""The device mesh, and global batches laid over it.

| axis    | splits                                                                                |
| data    | rows of the batch; parameters are copied. Over slices, if several                     |
| fsdp    | rows of the batch, and one dimension of each large parameter                          |
| context | tokens and patches of each row, and that dimension again; for rows longer than memory |
| tensor  | heads, MLP columns and vocabulary of each parameter                                   |

Axes are of type Auto: the compiler places the collectives, and the model needs to know nothing of the mesh.
"""

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from umit_jax.batch import DTYPES, Batch, batch_shapes

AXES = ("data", "fsdp", "context", "tensor")
ROWS = ("data", "fsdp")
BATCH = PartitionSpec(ROWS, "context")  # rows, and what they are a sequence of
WIDTH = ("fsdp", "context")  # of the residual stream, in parameters


class MeshError(ValueError):
    """A mesh that does not fit the devices, or a batch that does not fit the mesh."""


def make_mesh(axes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices (or `devices`), of the sizes that axis_sizes gives.

    TPU slices are joined by the data axis alone: what goes over the network between them is then one gradient a step.
    """
    devices = jax.devices() if devices is None else devices
    slices = by_slice(devices)
    data, *inside = axis_sizes(axes, len(devices), len(slices))
    auto = (AxisType.Auto,) * len(AXES)
    shape = (data // len(slices), *inside)
    # jax.make_mesh refuses a mesh axis that is half an axis of the slice, as tensor 4 on a torus of 16 x 16.
    parts = [create_device_mesh(shape, part, allow_split_physical_axes=True) for part in slices]
    return Mesh(np.concatenate(parts), AXES, axis_types=auto)


def axis_sizes(axes: Mapping[str, int], devices: int, slices: int) -> tuple[int, ...]:
    """The size of each of AXES. An axis left out is 1; one axis may be -1 and takes what is left.

    Raises MeshError for an unknown axis, sizes whose product is not the number of devices, or a data axis that slices
    do not divide.
    """
    unknown = [name for name in axes if name not in AXES]
    if unknown:
        raise MeshError(f"mesh.{unknown[0]}: unknown axis, expected {' | '.join(AXES)}")
    sizes = {name: int(axes.get(name, 1)) for name in AXES}
    wrong = [name for name, size in sizes.items() if size < 1 and size != -1]
    if wrong:
        raise MeshError(f"mesh.{wrong[0]}: expected a positive size or -1, found {sizes[wrong[0]]}")
    open_axes = [name for name, size in sizes.items() if size == -1]
    if len(open_axes) > 1:
        raise MeshError(f"mesh: only one axis may be -1, found {' and '.join(open_axes)}")
    if open_axes:
        fixed = math.prod(size for size in sizes.values() if size > 0)
        sizes[open_axes[0]] = devices // fixed
    if math.prod(sizes.values()) != devices:
        shown = " x ".join(f"{name} {axes.get(name, 1)}" for name in AXES)
        raise MeshError(f"mesh: {shown} does not fit {devices} devices")
    if sizes["data"] % slices:
        raise MeshError(f"mesh.data: expected a multiple of the {slices} slices, found {sizes['data']}")
    return tuple(sizes.values())


def by_slice(devices: Sequence[jax.Device]) -> list[list[jax.Device]]:
    """The devices of each TPU slice, which has a network of its own; devices of other kinds are one slice."""
    groups: dict[int, list[jax.Device]] = {}
    for device in devices:
        number = getattr(device, "slice_index", None) if device.platform == "tpu" else None
        groups.setdefault(number or 0, []).append(device)
    if len({len(group) for group in groups.values()}) != 1:
        raise MeshError(f"mesh: slices of different sizes: {[len(group) for group in groups.values()]}")
    return [groups[number] for number in sorted(groups)]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over (data, fsdp), tokens and patches over context; every field of a Batch has these two first."""
    return NamedSharding(mesh, BATCH)


def abstract_batch(mesh: Mesh, rows: int, tokens: int, patches: int, patch_values: int) -> Batch:
    """A global batch as ShapeDtypeStructs with their shardings."""
    sharding = batch_sharding(mesh)
    shapes = batch_shapes(rows, tokens, patches, patch_values)
    pairs = zip(shapes, DTYPES, strict=True)
    return Batch(*(jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for shape, dtype in pairs))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def row_shards(mesh: Mesh) -> int:
    """How many parts the rows of a batch are split into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_batch_divides(mesh: Mesh, rows: int, tokens: int, patches: int) -> None:
    """Raises MeshError where a global batch of `rows` rows of so many tokens and patches does not divide among the
    mesh; the four patches that become one token stay together."""
    data, fsdp, context = (mesh.shape[axis] for axis in AXES[:3])
    if rows % (data * fsdp):
        raise MeshError(f"data.rows: expected a multiple of mesh.data x mesh.fsdp = {data} x {fsdp}, found {rows}")
    if tokens % context:
        raise MeshError(f"data.row_tokens: expected a multiple of mesh.context = {context}, found {tokens}")
    if patches % (4 * context):
        raise MeshError(f"data.row_patches: expected a multiple of 4 x mesh.context = {4 * context}, found {patches}")


def data_process(mesh: Mesh, process: int | None = None) -> tuple[int, int]:
    """(index, count): this process reads the index-th of `count` equal parts of a global batch, in row order.

    Processes whose devices hold the same rows (tensor or context across hosts) read the same part, whole rows of it;
    otherwise this is (process_index, process_count) up to the order of devices in the mesh. Raises MeshError
    where processes share some rows and not others.
    """
    process = jax.process_index() if process is None else process
    blocks = mesh.devices.reshape(row_shards(mesh), -1)
    held: dict[int, list[int]] = {}
    for block, devices in enumerate(blocks):
        for owner in sorted({device.process_index for device in devices}):
            held.setdefault(owner, []).append(block)
    groups = sorted({tuple(held_blocks) for held_blocks in held.values()})
    if sum(map(len, groups)) != len(blocks) or len({len(group) for group in groups}) != 1:
        raise MeshError(f"mesh: processes hold overlapping rows: {groups}")
    return groups.index(tuple(held[process])), len(groups)


def global_batch(mesh: Mesh, local: Batch) -> Batch:
    """This process's rows (numpy) -> the global batch; the rows of all processes together divide among the mesh."""
    _, count = data_process(mesh)
    sharding = batch_sharding(mesh)

    def place(array: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, array, (array.shape[0] * count, *array.shape[1:]))

    return Batch(*(place(array) for array in local))


def own_rows(mesh: Mesh, rows: int) -> list[int]:
    """The rows of a global array of `rows` rows that this process's devices hold, in order."""
    held = NamedSharding(mesh, PartitionSpec(ROWS)).addressable_devices_indices_map((rows,))
    return sorted({row for index in held.values() if index for row in range(*index[0].indices(rows))})


def from_own_rows(mesh: Mesh, rows: int, own: Sequence[int], local: np.ndarray) -> jax.Array:
    """The global array of which this process has the rows `own`, whatever rows the others have."""
    place = {row: i for i, row in enumerate(own)}

    def part(index: tuple[slice, ...]) -> np.ndarray:
        return local[[place[row] for row in range(*index[0].indices(rows))]]

    return jax.make_array_from_callback((rows, *local.shape[1:]), NamedSharding(mesh, PartitionSpec(ROWS)), part)


def cache_sharding(mesh: Mesh) -> NamedSharding:
    """Of keys (B, K, H, T) and values (B, K, T, H): rows as everywhere, heads over tensor, which divides those of the
    parameters."""
    return NamedSharding(mesh, PartitionSpec(ROWS, "tensor", None, None))


def everywhere(x: jax.Array) -> np.ndarray:
    """The whole of a global array, in every process. Collective."""
    return np.asarray(x if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True))
