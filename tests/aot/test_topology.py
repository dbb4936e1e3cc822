import re

import pytest

from umit_jax.aot.chips import CHIPS
from umit_jax.aot.topology import TopologyError, names, parse


@pytest.mark.parametrize(
    ("name", "shape", "chips"),
    [
        ("v5e-256", "v5e:16x16", 256),
        ("v5e-16", "v5e:4x4", 16),
        ("v6e-256", "v6e:16x16", 256),
        ("v5p-512", "v5p:4x8x8", 256),  # these count cores, two a chip
        ("v4-8", "v4:2x2x1", 4),
        ("tpu7x-128", "tpu7x:4x4x4", 64),
        ("v5e:16x16", "v5e:16x16", 256),
        ("v5p:16x20x28", "v5p:16x20x28", 8960),
    ],
)
def test_cloud_names_and_shapes_are_understood(name, shape, chips):
    found = parse(name)
    assert (found.name, found.chips) == (shape, chips)
    assert parse(name, slices=3).chips == 3 * chips


@pytest.mark.parametrize("name", ["v9-4", "v5e-17", "v5e", "v5e:16", "v5p:16x16", "v5e:0x4", "v5e:axb"])
def test_an_unknown_slice_is_one_line_that_lists_known_ones(name):
    with pytest.raises(TopologyError, match=r"--topology: expected .*found '" + re.escape(name)) as error:
        parse(name)
    assert "\n" not in str(error.value)
    assert re.search(r"v5e[-:]\d|v5p:\d", str(error.value))


def test_every_name_counts_cores_or_chips_as_its_chip_does():
    for name, shape in names().items():
        chip, count = name.split("-")
        assert parse(shape).chips * CHIPS[chip].cores == int(count), name


def test_slices_start_at_one():
    with pytest.raises(TopologyError, match="--slices: expected at least 1, found 0"):
        parse("v5e-16", slices=0)
