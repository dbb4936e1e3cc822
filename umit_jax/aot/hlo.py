"""The text of an optimised HLO program, and a walk over what it executes with how often each part runs.

The compiler's own cost_analysis counts the body of a loop once. Here computations are walked from the entry, and a
while loop multiplies what it holds by its trip count: the known_trip_count that the compiler wrote down, or the
constant that its condition compares with; a loop that runs as long as the data want takes what the caller expects.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

PLACES = {"layers": "layer_loop", "vocabulary_loss": "loss_loop"}  # named scope of a loop -> how a report calls it

Shape = tuple[str, tuple[int, ...]]  # (element type, dimensions)
Computation = dict[str, "Instruction"]

BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "f8e4m3fn": 8, "f8e5m2": 8, "bf16": 16, "f16": 16, "s16": 16}
BITS |= {"u16": 16, "s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "c64": 64, "c128": 128}
_SHAPE = re.compile(r"\b(" + "|".join(BITS) + r")\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*)?\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"(?:^|\s)([a-z][a-z0-9\-]*)\(")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
_CONDITION = re.compile(r"\bcondition=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_NAME = re.compile(r'op_name="([^"]*)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_INDEX = re.compile(r"\bindex=(\d+)")
_CONSTANT = re.compile(r"(-?\d+)")


class HloError(ValueError):
    """A program whose text is not understood."""


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction. shapes: of its results. arguments, rest: what stands inside and after the parentheses."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    arguments: str
    rest: str

    @property
    def op_name(self) -> str:
        """Where jax says it comes from: transformations and named scopes, joined by "/"."""
        found = _NAME.search(self.rest)
        return found[1] if found else ""

    def operands(self, inside: Computation) -> list["Instruction"]:
        return [inside[name] for name in re.findall(r"%?([\w.\-]+)", self.arguments) if name in inside]

    def called(self) -> list[str]:
        branches = _BRANCHES.search(self.rest)
        extra = re.findall(r"[\w.\-]+", branches[1]) if branches else []
        return _CALLED.findall(self.rest) + extra


@dataclasses.dataclass(frozen=True)
class Executed:
    """An instruction, the computation it stands in, how often a step runs it, and where: "step", or a loop's place."""

    instruction: Instruction
    inside: Computation
    times: float
    place: str


class Module:
    """A parsed program."""

    def __init__(self, text: str):
        self.computations: dict[str, Computation] = {}
        self.entry = ""
        current: Computation = {}
        for line in _joined(text):
            header = _COMPUTATION.match(line)
            if header:
                current = self.computations[header[2]] = {}
                self.entry = header[2] if header[1] else self.entry
            elif (match := _INSTRUCTION.match(line)) is not None:
                current[match[1]] = _parse(match[1], line[match.end() :])
        if not self.entry:
            raise HloError("no ENTRY computation: not the text of an HLO module")

    def walk(self, trips: Mapping[str, float]) -> Iterator[Executed]:
        """Everything a step executes, fused instructions included.

        trips: runs to expect of loops that depend on data, by a named scope they are in. Raises HloError for a loop
        that nothing is known of.
        """
        yield from self._walk(self.entry, 1.0, "step", trips)

    def _walk(self, computation: str, times: float, place: str, trips: Mapping[str, float]) -> Iterator[Executed]:
        inside = self.computations[computation]
        for instruction in inside.values():
            yield Executed(instruction, inside, times, place)
            runs, where = 1.0, place
            if instruction.opcode == "while":
                runs = self._trips(instruction, trips)
                where = self._place(instruction) or place
            for called in instruction.called():
                yield from self._walk(called, times * runs, where, trips)

    def _place(self, loop: Instruction) -> str | None:
        """By the loop's own name, or where the compiler dropped that, by what most of its body is named."""
        body = "" if loop.op_name else " ".join(i.op_name for i in self.computations[loop.called()[0]].values())
        counts = {name: (loop.op_name or body).count(scope) for scope, name in PLACES.items()}
        most = max(counts, key=lambda name: counts[name])
        return most if counts[most] else None

    def _trips(self, loop: Instruction, trips: Mapping[str, float]) -> float:
        known = _TRIPS.search(loop.rest)
        if known:
            return float(known[1])
        counted = self._counted(loop)
        if counted is not None:
            return counted
        for scope, count in trips.items():
            if scope in loop.op_name:
                return count
        raise HloError(f"{loop.name}: how often this loop runs depends on data: {loop.op_name or 'no name'}")

    def _counted(self, loop: Instruction) -> float | None:
        """Trips of a loop whose condition is counter < constant; the counter starts at 0 and the body adds a constant,
        1 where that cannot be seen. Unrolled loops of TPU programs add 2."""
        condition = _CONDITION.search(loop.rest)
        inside = self.computations[condition[1]] if condition else {}
        for compare in inside.values():
            if compare.opcode != "compare" or "direction=LT" not in compare.rest:
                continue
            bounds = [constant(operand) for operand in compare.operands(inside)]
            counter = next((_INDEX.search(operand.rest) for operand in compare.operands(inside)), None)
            if bounds[-1] is not None:
                step = self._step(loop, int(counter[1])) if counter else 1
                return float(-(-bounds[-1] // step))
        return None

    def _step(self, loop: Instruction, index: int) -> int:
        body = self.computations[loop.called()[0]]
        root = list(body.values())[-1]
        advanced = root.operands(body)[index] if root.opcode == "tuple" else root
        added = [constant(operand) for operand in advanced.operands(body)] if advanced.opcode == "add" else []
        return next((value for value in added if value), 1)


def constant(instruction: Instruction) -> int | None:
    """The value of an integer constant."""
    is_one = instruction.opcode == "constant" and _CONSTANT.fullmatch(instruction.arguments)
    return int(instruction.arguments) if is_one else None


def _joined(text: str) -> Iterator[str]:
    """Lines, with what a line break inside an attribute cut off joined again."""
    whole = ""
    for line in text.splitlines():
        if _INSTRUCTION.match(line) or _COMPUTATION.match(line) or line == "}":
            yield whole
            whole = line
        else:
            whole += line
    yield whole


def _parse(name: str, text: str) -> Instruction:
    found = _OPCODE.search(text)
    if found is None:
        raise HloError(f"{name}: no operation in {text[:80]!r}")
    depth, end = 1, found.end()
    while depth and end < len(text):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    shapes = tuple(parse_shapes(text[: found.start()]))
    return Instruction(name, found[1], shapes, text[found.end() : end - 1], text[end:])


def parse_shapes(text: str) -> Iterator[Shape]:
    for kind, sizes in _SHAPE.findall(text):
        yield kind, tuple(int(size) for size in sizes.split(",") if size)


def size_bytes(shape: Shape) -> int:
    return math.prod(shape[1]) * BITS[shape[0]] // 8
