"""Collectives of an HLO program: kind, bytes, who takes part, and where they stand.

| kind               | bytes            | a device sends, in a group of g                |
| all-gather         | of the result    | (g - 1) / g of them                            |
| reduce-scatter     | of the operand   | (g - 1) / g                                    |
| all-reduce         | of the operand   | twice (g - 1) / g: a reduce-scatter, a gather  |
| all-to-all         | of the operand   | (g - 1) / g                                    |
| collective-permute | of the operand   | all                                            |

The compiler hides a collective behind products by spreading it over several fusions, all with its chain_id: that is
one. Groups that reach over several slices go through their network, once reduced inside each slice; TPU programs write
that part as a send to the host.
"""

import dataclasses
import math
import re
from collections.abc import Iterable

import numpy as np

from umit_jax.aot.hlo import Executed, Instruction, size_bytes

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:\([^)]*\))? ?\{([^}]*)\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_LISTS = re.compile(r"replica_groups=\{(\{[\d,]+\})")
_BETWEEN_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_CHAIN = re.compile(r'chain_id="(\d+)"')


@dataclasses.dataclass(frozen=True)
class Collective:
    """bytes: of one run on one device. times: runs a step. group: devices of one group; slices: that it reaches over.
    ici_bytes, dcn_bytes: that a device sends in one run to its own slice and to others."""

    kind: str
    place: str
    bytes: int
    times: float
    group: int
    slices: int
    ici_bytes: float
    dcn_bytes: float


def collectives(program: Iterable[Executed], devices: int, slices: int) -> list[Collective]:
    """Every collective that moves something. program: as Module.walk gives it."""
    seen: set[tuple[str, str]] = set()
    found = []
    for executed in program:
        instruction = executed.instruction
        kind = instruction.opcode.removesuffix("-start")
        between = _BETWEEN_SLICES.search(instruction.rest) if kind == "send" else None
        if between is not None:
            found.append(_between_slices(between[1], executed, slices))
        if kind not in KINDS:
            continue
        chain = _CHAIN.search(instruction.rest)
        key = (kind, f"chain {chain[1]}" if chain else instruction.name)
        group, reached = _group(instruction, devices, slices)
        if key in seen or group == 1:
            continue
        seen.add(key)
        found.append(_collective(kind, executed, group, reached))
    return found


def _between_slices(transfer: str, executed: Executed, slices: int) -> Collective:
    """Each device sends its shard to the devices of the other slices that have the same one."""
    size = size_bytes(executed.instruction.operands(executed.inside)[0].shapes[0])
    kind = transfer.lower().replace("_", "-")
    sent = (2 if kind == "all-reduce" else 1) * (slices - 1) / slices * size
    return Collective(kind, executed.place, size, executed.times, slices, slices, 0.0, sent)


def _collective(kind: str, executed: Executed, group: int, slices: int) -> Collective:
    instruction = executed.instruction
    operands = [shape for operand in instruction.operands(executed.inside) for shape in operand.shapes]
    results = list(instruction.shapes)
    if kind == "all-gather" and instruction.opcode.endswith("-start"):
        results = results[len(operands) :]  # (operands, results, ...)
    size = sum(size_bytes(shape) for shape in (results if kind in ("all-gather", "all-reduce") else operands))
    rounds = 2 if kind == "all-reduce" else 1
    inside = group // slices
    share = 1.0 if kind == "collective-permute" else rounds * (inside - 1) / inside
    across = 0.0 if slices == 1 else rounds * (slices - 1) / slices / inside
    return Collective(kind, executed.place, size, executed.times, group, slices, share * size, across * size)


def _group(instruction: Instruction, devices: int, slices: int) -> tuple[int, int]:
    """(devices of a group, slices it reaches over). Devices are numbered slice by slice."""
    members = _members(instruction.rest, devices)
    return len(members), len({member // (devices // slices) for member in members})


def _members(rest: str, devices: int) -> list[int]:
    """The first group."""
    if (mesh := _MESH.search(rest)) is not None:
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
        taken = re.findall(r"'([^']+)'", mesh[2])
        numbers = np.arange(math.prod(map(int, sizes.values()))).reshape([int(size) for size in sizes.values()])
        return numbers[tuple(slice(None) if axis in taken else 0 for axis in sizes)].ravel().tolist()
    if (iota := _IOTA.search(rest)) is not None:
        shape, source = ([int(size) for size in text.split(",")] for text in iota.group(1, 2))
        numbers = np.arange(math.prod(source)).reshape(source)
        if iota[3]:
            numbers = numbers.transpose([int(axis) for axis in iota[3].split(",")])
        return numbers.reshape(shape)[0].ravel().tolist()
    if (lists := _LISTS.search(rest)) is not None:
        return [int(number) for number in re.findall(r"\d+", lists[1])]
    if (pair := re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", rest)) is not None:
        return [int(pair[1]), int(pair[2])]
    return list(range(devices))
