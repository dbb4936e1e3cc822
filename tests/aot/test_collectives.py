"""Collectives of programs compiled for eight fake devices, and of texts as TPU programs write them."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from umit_jax.aot.collectives import collectives
from umit_jax.aot.hlo import Module
from umit_jax.parallel.mesh import make_mesh


def on_mesh(function, spec, out, shape=(64, 32), slices=1):
    mesh = make_mesh({"data": 2, "fsdp": 4})
    run = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=out, check_vma=False)
    argument = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
    text = jax.jit(run).lower(argument).compile().as_text()
    return collectives(Module(text).walk({}), 8, slices)


def test_an_all_gather_has_the_bytes_of_its_result_and_a_group_of_its_axis():
    (found,) = on_mesh(lambda x: jax.lax.all_gather(x, "fsdp", tiled=True), PartitionSpec("fsdp"), PartitionSpec())
    assert (found.kind, found.bytes, found.group, found.place) == ("all-gather", 64 * 32 * 4, 4, "step")
    assert found.ici_bytes == 64 * 32 * 4 * 3 / 4


def test_an_all_reduce_sends_everything_twice():
    (found,) = on_mesh(lambda x: jax.lax.psum(x, "fsdp"), PartitionSpec("fsdp"), PartitionSpec())
    assert (found.kind, found.bytes, found.ici_bytes) == ("all-reduce", 16 * 32 * 4, 2 * 16 * 32 * 4 * 3 / 4)


def test_a_collective_in_the_layer_loop_says_so_and_runs_as_often():
    def layers(x):
        with jax.named_scope("layers"):
            return jax.lax.scan(lambda x, _: (jnp.sin(jax.lax.psum(x, "fsdp")), None), x, None, length=6)[0]

    (found,) = on_mesh(layers, PartitionSpec("fsdp"), PartitionSpec("fsdp"))
    assert (found.place, found.times, found.group) == ("layer_loop", 6.0, 4)


def test_what_reaches_over_slices_is_reduced_inside_them_first():
    everything = ("data", "fsdp")
    (found,) = on_mesh(lambda x: jax.lax.psum(x, everything), PartitionSpec(everything), PartitionSpec(), slices=2)
    assert (found.group, found.slices) == (8, 2)
    size = 8 * 32 * 4
    assert (found.ici_bytes, found.dcn_bytes) == (2 * size * 3 / 4, 2 * size / 2 / 4)
    (inside,) = on_mesh(lambda x: jax.lax.psum(x, "fsdp"), PartitionSpec("fsdp"), PartitionSpec(), slices=2)
    assert (inside.slices, inside.dcn_bytes) == (1, 0.0)


SLICES = """HloModule jit_step

ENTRY %main (p: bf16[14,32]) -> bf16[14,32] {
  %p = bf16[14,32]{1,0} parameter(0)
  %token = token[] after-all()
  %send.1 = (bf16[14,32]{1,0}, u32[], token[]) send(%p, %token), channel_id=8, is_host_transfer=true, \
frontend_attributes={_xla_megascale_target="{1,2}x{0:255}",_xla_megascale_transfer_type="ALL_REDUCE"}
  ROOT %q = bf16[14,32]{1,0} copy(%p)
}
"""


def test_what_slices_send_each_other_is_counted():
    (found,) = collectives(Module(SLICES).walk({}), 512, 2)
    size = 14 * 32 * 2
    assert (found.kind, found.bytes, found.slices, found.ici_bytes) == ("all-reduce", size, 2, 0.0)
    assert found.dcn_bytes == 2 * size / 2


TPU = """HloModule jit_step

%start (p: bf16[14,32]) -> bf16[56,32] {
  %p = bf16[14,32]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[56,32]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=69, \
replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}, \
frontend_attributes={chain_id="8"}
}

%done (p: bf16[14,32]) -> bf16[56,32] {
  %p = bf16[14,32]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[56,32]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=69, \
replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}, \
frontend_attributes={chain_id="8"}
}

ENTRY %main (p: bf16[14,32]) -> bf16[56,32] {
  %p = bf16[14,32]{1,0} parameter(0)
  %fusion.1 = bf16[56,32]{1,0} fusion(%p), kind=kCustom, calls=%start
  %all-reduce.9 = bf16[14,32]{1,0} all-reduce(%p), channel_id=70, replica_groups=GROUPS, to_apply=%add
  ROOT %fusion.2 = bf16[56,32]{1,0} fusion(%p), kind=kCustom, calls=%done
}
"""


def test_one_collective_spread_over_several_fusions_counts_once():
    found = collectives(Module(TPU.replace(", to_apply=%add", "")).walk({}), 8, 1)
    gathers = [c for c in found if c.kind == "all-gather"]
    assert [(c.group, c.bytes) for c in gathers] == [(4, 56 * 32 * 2)]


@pytest.mark.parametrize(
    ("groups", "group", "slices"),
    [
        ("[2,4]<=[8]", 4, 1),
        ("[4,2]<=[2,4]T(1,0)", 2, 2),
        ("{{0,2},{1,3},{4,6},{5,7}}", 2, 1),
        ("mesh['a'=2,'b'=2,'c'=2] {'a','c'}", 4, 2),
    ],
)
def test_every_way_to_write_groups_is_read(groups, group, slices):
    text = TPU.replace("GROUPS", groups).replace(", to_apply=%add", "")
    (found,) = (c for c in collectives(Module(text).walk({}), 8, 2) if c.kind == "all-reduce")
    assert (found.group, found.slices) == (group, slices)
