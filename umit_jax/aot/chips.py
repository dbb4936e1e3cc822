"""TPU chips in published figures, for what a compiled step needs and how long it should take.

Peak is dense bfloat16. ICI is per chip and in both directions together; a ring moves data in one of them at a time,
so the step estimate uses half of it. DCN is the network between slices.

| chip  | source                                                                                              |
| v4    | cloud.google.com/tpu/docs/v4; ICI: six links of 50 GB/s each way (arXiv 2304.01433); DCN: 50 Gbit/s  |
| v5e   | cloud.google.com/tpu/docs/v5e; DCN: 6.4 Tbit/s per pod of 256                                        |
| v5p   | cloud.google.com/tpu/docs/v5p                                                                       |
| v6e   | cloud.google.com/tpu/docs/v6e, HBM bandwidth and ICI from cloud.google.com/tpu/docs/tpu7x            |
| tpu7x | cloud.google.com/tpu/docs/tpu7x; jax sees the two dies of a chip as two devices                      |
"""

import dataclasses

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip. Rates are per second: peak_flops (bfloat16), hbm_rate, ici_rate (both directions) and dcn_rate bytes.

    devices: jax devices of a chip. dimensions: of the torus. cores: what cloud names such as v5p-512 count per chip.
    """

    name: str
    hbm_bytes: int
    peak_flops: float
    hbm_rate: float
    ici_rate: float
    dcn_rate: float
    dimensions: int
    devices: int = 1
    cores: int = 1


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 32 * GIB, 275e12, 1200e9, 600e9, 6.25e9, 3, cores=2),
        Chip("v5e", 16 * GIB, 197e12, 819e9, 400e9, 3.125e9, 2),
        Chip("v5p", 95 * GIB, 459e12, 2765e9, 1200e9, 6.25e9, 3, cores=2),
        Chip("v6e", 32 * GIB, 918e12, 1638e9, 800e9, 12.5e9, 2),
        Chip("tpu7x", 192 * GIB, 2307e12, 7380e9, 1200e9, 12.5e9, 3, devices=2, cores=2),
    )
}
