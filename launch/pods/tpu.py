"""TPU slices as Google's services call them, on top of the names that `umit compile` knows (umit_jax/aot/topology.py).

| slice   | GKE (accelerator, topology) | Cloud TPU     | hosts                                                   |
| v5e-1   | tpu-v5-lite-podslice, 1x1   | v5litepod-1   | 1 of 1 chip                                             |
| v5e-8   | tpu-v5-lite-podslice, 2x4   | v5litepod-8   | GKE: 2 of 4 chips; a TPU VM: 1 of 8 chips; v6e likewise |
| v5e-256 | tpu-v5-lite-podslice, 16x16 | v5litepod-256 | 64 of 4 chips                                           |
| v5p-512 | tpu-v5p-slice, 4x8x8        | v5p-512       | 64 of 4 chips                                           |

Sources: cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus, cloud.google.com/tpu/docs.
"""

import argparse
import math

from launch.cli import UsageError
from launch.pods.run import Topology

GKE_ACCELERATORS = {
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
    "tpu7x": "tpu7x",
}
CLOUD_TYPES = {"v5e": "v5litepod"}  # where it is not the chip's own name
_VM_RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5e": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--topology", required=True, metavar="NAME", help="v5e-256, v5p-512, v5e:16x16, ...")
    parser.add_argument("--slices", type=int, default=1, help="slices of this topology, joined by the data axis")


def topology(args: argparse.Namespace, *, hosts_of_8: bool = False) -> Topology:
    """hosts_of_8: whether a v5e or v6e slice of 8 chips is one host. All other hosts have 4 chips, or the only one."""
    from umit_jax.aot.topology import parse

    slices = parse(args.topology, args.slices)
    chips = math.prod(slices.shape)
    whole = chips == 1 or (chips == 8 and hosts_of_8 and slices.chip.dimensions == 2)
    on_a_host = chips if whole else 4
    if chips % on_a_host:
        raise UsageError(f"--topology: expected one chip or hosts of 4, found {args.topology!r} with {chips} chips")
    return Topology(slices.name, chips // on_a_host * args.slices, on_a_host * slices.chip.devices, args.slices)


def parts(topology: Topology) -> tuple[str, str, int]:
    """The chip, the shape (16x16) and the number of chips of a host."""
    from umit_jax.aot.topology import parse

    chip, _, shape = topology.accelerator.partition(":")
    return chip, shape, topology.devices_per_process // parse(topology.accelerator).chip.devices


def vm_type(topology: Topology) -> tuple[str, str]:
    """The type of a TPU VM slice (v5litepod-256) and the runtime it boots. Raises UsageError where it has no name."""
    from umit_jax.aot.topology import names

    chip = topology.accelerator.partition(":")[0]
    named = {shape: name for name, shape in names().items()}
    if chip not in _VM_RUNTIMES:
        raise UsageError(
            f"--topology: {topology.accelerator} is no TPU VM: expected {', '.join(_VM_RUNTIMES)}; see gke"
        )
    if topology.accelerator not in named:
        raise UsageError(f"--topology: {topology.accelerator} has no TPU VM type; gke and xpk take any shape")
    _, _, size = named[topology.accelerator].rpartition("-")
    return f"{CLOUD_TYPES.get(chip, chip)}-{size}", _VM_RUNTIMES[chip]
