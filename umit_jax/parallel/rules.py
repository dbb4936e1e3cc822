"""Logical axes of parameters -> mesh axes. One table; a parameter it cannot shard is an error that names it.

Each kernel gets one dimension on fsdp and context (the width it shares with the residual stream) and one on tensor
(heads, MLP columns or vocabulary), so a parameter is gathered over the first two where it is used and never over
tensor. A vocabulary that tensor does not divide is stored whole, and padded where it is split (parallel/loss.py).
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from umit_jax.parallel.mesh import WIDTH

Rule = str | tuple[str, ...] | None  # mesh axes that split a dimension, the first most coarsely

RULES: dict[str, Rule] = {
    "layers": None,
    "head_dim": None,
    "embed": WIDTH,
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "patch": None,
    "vision_embed": WIDTH,
    "vision_heads": "tensor",
    "vision_mlp": "tensor",
}


WHOLE_IF_INDIVISIBLE = ("vocab",)  # a tokenizer's size is not ours to choose; everything else is


class ShardingError(ValueError):
    """A parameter whose axes do not fit the rules or the mesh; the message names the parameter."""


def partition(
    path: str, axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh, rules: Mapping[str, Rule] = RULES
) -> PartitionSpec:
    """The PartitionSpec of one parameter. Raises ShardingError for an axis that no rule names, two dimensions on one
    mesh axis, or a dimension that its mesh axis does not divide."""
    if len(axes) != len(shape):
        raise ShardingError(f"{path}: expected one axis name per dimension of {shape}, found {axes}")
    spec: list[Rule] = []
    taken: set[str] = set()
    for axis, size in zip(axes, shape, strict=True):
        if axis is not None and axis not in rules:
            raise ShardingError(f"{path}: no rule for axis {axis!r}, expected one of {', '.join(rules)}")
        rule = None if axis is None else rules[axis]
        targets = (rule,) if isinstance(rule, str) else rule or ()
        for target in targets:
            if target not in mesh.shape:
                raise ShardingError(f"{path}: axis {axis!r} goes to mesh axis {target!r}, mesh has {tuple(mesh.shape)}")
            if target in taken:
                raise ShardingError(f"{path}: axes {axes} put two dimensions on mesh axis {target!r}")
        split = {target: mesh.shape[target] for target in targets if mesh.shape[target] > 1}
        if size % math.prod(split.values()):
            if axis not in WHOLE_IF_INDIVISIBLE:
                shown = f"{' x '.join(f'mesh.{name}' for name in split)} = {' x '.join(map(str, split.values()))}"
                raise ShardingError(f"{path}: axis {axis!r} of size {size} does not divide by {shown}")
            rule, targets = None, ()
        taken.update(targets)
        spec.append(rule)
    return PartitionSpec(*spec)


def shardings(
    mesh: Mesh, axes: Mapping[str, Any], shapes: Mapping[str, Any], rules: Mapping[str, Rule] = RULES
) -> dict[str, Any]:
    """NamedShardings of a parameter tree.

    axes: nested dict of tuples of logical axis names. shapes: the same tree of anything with a shape.
    """
    flat_axes, flat_shapes = flatten_dict(axes, sep="/"), flatten_dict(shapes, sep="/")
    if flat_axes.keys() != flat_shapes.keys():
        raise ShardingError(f"{min(flat_axes.keys() ^ flat_shapes.keys())}: axes and shapes name different parameters")
    specs = {path: partition(path, flat_axes[path], flat_shapes[path].shape, mesh, rules) for path in flat_axes}
    return unflatten_dict({path: NamedSharding(mesh, spec) for path, spec in specs.items()}, sep="/")


def with_shardings(tree: Any, shardings: Any) -> Any:
    """A tree of anything with shape and dtype as ShapeDtypeStructs that carry these shardings."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)
