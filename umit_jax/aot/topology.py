"""Names of TPU slices -> devices to compile for, on a machine that has none.

| name       | means                                                       |
| v5e-256    | 256 chips; v5e and v6e names count chips                    |
| v5p-512    | 256 chips; v4, v5p and tpu7x names count cores, two a chip  |
| v5e:16x16  | the shape of the torus, in chips                            |

The compiler itself takes shapes only. It comes with the package libtpu, which jax[tpu] installs.
"""

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax

from umit_jax.aot.chips import CHIPS, Chip

_SHAPES = {
    2: ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    3: ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16"),
}
_LARGEST = {"v5p": ("16x16x24",)}  # beyond the shapes that all chips of three dimensions have
_CONFIG = {"v4": "megacore"}  # chip_config_name where the compiler's default is not one device a chip


class TopologyError(ValueError):
    """A slice that is not known, or cannot be compiled for here; the message names it."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """`slices` slices of one shape, in chips."""

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chips(self) -> int:
        return math.prod(self.shape) * self.slices

    @property
    def name(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def ici_links(self) -> int:
        """Links of a chip that lead somewhere: two a dimension that is longer than 1."""
        return 2 * sum(size > 1 for size in self.shape)

    def devices(self) -> list[jax.Device]:
        """The devices, as jax sees them. Raises TopologyError where libtpu is missing or refuses the shape."""
        if importlib.util.find_spec("libtpu") is None:
            raise TopologyError(
                f"--topology {self.name}: compiling for a TPU needs the package libtpu: pip install 'jax[tpu]'"
            )
        from jax.experimental import topologies

        options: dict[str, Any] = {"num_slices": self.slices} if self.slices > 1 else {}
        if self.chip.name in _CONFIG:
            options["chip_config_name"] = _CONFIG[self.chip.name]
        if math.prod(self.shape) < 4:
            options["chips_per_host_bounds"] = (1, 1, 1)
        # No TPU is looked for, and another process may be compiling.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        try:
            found = topologies.get_topology_desc(platform="tpu", topology_name=self.name, **options)
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise TopologyError(f"--topology {self.name}: the compiler refuses it: {reason}") from error
        return list(found.devices)


def names() -> dict[str, str]:
    """Every known cloud name -> its shape, v5e-1 to tpu7x-8192."""
    known = {}
    for chip in CHIPS.values():
        for shape in (*_SHAPES[chip.dimensions], *_LARGEST.get(chip.name, ())):
            chips = math.prod(int(size) for size in shape.split("x"))
            known[f"{chip.name}-{chips * chip.cores}"] = f"{chip.name}:{shape}"
    return known


def parse(name: str, slices: int = 1) -> Topology:
    """A cloud name or a shape as a Topology. Raises TopologyError that lists the known names."""
    if slices < 1:
        raise TopologyError(f"--slices: expected at least 1, found {slices}")
    known = names()
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", known.get(name, name))
    if match is None or match[1] not in CHIPS:
        raise TopologyError(
            f"--topology: expected one of {', '.join(known)} or a shape as in v5e:16x16, found {name!r}"
        )
    chip, shape = CHIPS[match[1]], tuple(int(size) for size in match[2].split("x"))
    if len(shape) != chip.dimensions or 0 in shape:
        example = known[next(key for key in reversed(known) if key.startswith(chip.name))]
        raise TopologyError(f"--topology: expected {chip.dimensions} dimensions as in {example}, found {name!r}")
    return Topology(chip, shape, slices)
