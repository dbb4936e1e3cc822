"""FLOPs of an HLO program: its products and its attention kernels, 2 per multiply and add as the chips' peaks count.

| instruction     | FLOPs                                                                                        |
| dot             | 2 x elements of the result x elements contracted                                             |
| convolution     | 2 x positions where the kernel meets the input x channels (TPU programs write products so)   |
| tpu_custom_call | splash attention: products of a whole square, or of the blocks that causality leaves         |

Elementwise work is left out.
"""

import math
import re

import numpy as np

from umit_jax.aot.hlo import Computation, Executed, Instruction, parse_shapes

_PRODUCTS = {"_fwd": 2, "_dq": 3, "_dkv": 4}  # of queries x keys, in each of splash's kernels
_LAYOUTS = re.compile(r"operand_layout_constraints=\{(.*?\})\}")
_BLOCK = re.compile(r'\\?"block_(q|kv)(?:_dq|_dkv)?\\?": (\d+)')
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")


def flops(executed: Executed) -> float:
    """FLOPs of one run of an instruction; 0 for what is no product."""
    instruction = executed.instruction
    if instruction.opcode == "dot":
        return _dot(instruction, executed.inside)
    if instruction.opcode == "convolution":
        return _convolution(instruction, executed.inside)
    if instruction.opcode == "custom-call" and "tpu_custom_call" in instruction.rest:
        return _kernel(instruction)
    return 0.0


def _dot(instruction: Instruction, inside: Computation) -> float:
    left = _shape_of(instruction, inside, 0)
    contracted = _numbers(instruction.rest, "lhs_contracting_dims")
    return 2.0 * math.prod(instruction.shapes[0][1]) * math.prod(left[i] for i in contracted)


def _convolution(instruction: Instruction, inside: Computation) -> float:
    labels = _LABELS.search(instruction.rest)
    assert labels is not None, instruction.rest
    left, right = _shape_of(instruction, inside, 0), _shape_of(instruction, inside, 1)
    out = instruction.shapes[0][1]
    total = 2.0 * out[labels[3].index("b")] * out[labels[3].index("f")] * right[labels[2].index("i")]
    batch_groups = re.search(r"batch_group_count=(\d+)", instruction.rest)
    window = _window(instruction.rest)
    for axis in (label for label in labels[2] if label.isdigit()):
        size = left[labels[1].index(axis)]
        total *= _meetings(size, right[labels[2].index(axis)], out[labels[3].index(axis)], window, int(axis))
    return total / (int(batch_groups[1]) if batch_groups else 1)


def _meetings(size: int, kernel: int, out: int, window: dict[str, list[str]], axis: int) -> int:
    """Pairs of an output and a kernel position along one axis that lie on an element of the input."""

    def number(name: str, default: int) -> int:
        return int(window[name][axis]) if name in window else default

    before = int(window["pad"][axis].split("_")[0]) if "pad" in window else 0
    dilation = number("lhs_dilate", 1)
    at = np.arange(out)[:, None] * number("stride", 1) + np.arange(kernel) * number("rhs_dilate", 1) - before
    return int(np.sum((at % dilation == 0) & (at >= 0) & (at // dilation < size)))


def _window(rest: str) -> dict[str, list[str]]:
    found = re.search(r"window=\{([^}]*)\}", rest)
    pairs = (pair.split("=") for pair in found[1].split()) if found else ()
    return {name: value.split("x") for name, value in pairs}


def _kernel(instruction: Instruction) -> float:
    """Splash attention: queries (..., N, S, H) and keys (..., K, T, H) are its first floating operands."""
    products = next((count for phase, count in _PRODUCTS.items() if phase in instruction.name), 0)
    layouts = _LAYOUTS.search(instruction.rest)
    if not products or "splash" not in instruction.name or layouts is None:
        return 0.0
    floats = [shape for kind, shape in parse_shapes(layouts[1]) if kind in ("bf16", "f32") and len(shape) > 2]
    queries, keys = floats[0], floats[1]
    share = 1.0
    if "causal_attention" in instruction.op_name:
        blocks = {name: int(size) for name, size in _BLOCK.findall(instruction.rest)}
        wide, high = keys[-2] // blocks["kv"], keys[-2] // blocks["q"]  # of whole rows, also where queries are a part
        first = (np.arange(high) + 1) * blocks["q"] - 1  # the last query of each row of blocks
        share = float(np.sum(first // blocks["kv"] + 1)) / (wide * high)
    return 2.0 * products * math.prod(queries) * keys[-2] * share


def _shape_of(instruction: Instruction, inside: Computation, operand: int) -> tuple[int, ...]:
    return instruction.operands(inside)[operand].shapes[0][1]


def _numbers(rest: str, name: str) -> list[int]:
    found = re.search(rf"{name}=\{{([\d,]*)\}}", rest)
    return [int(number) for number in found[1].split(",") if number] if found else []
