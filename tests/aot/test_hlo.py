"""FLOPs and trip counts of programs compiled for the CPU, whose products are known."""

import jax
import jax.numpy as jnp
import pytest

from umit_jax.aot.hlo import HloError, Module
from umit_jax.aot.hlo_flops import flops


def compiled(function, *shapes) -> Module:
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return Module(jax.jit(function).lower(*arguments).compile().as_text())


def total(module: Module, **trips) -> float:
    return sum(flops(executed) * executed.times for executed in module.walk(trips))


def test_a_product_counts_two_per_multiply_and_add():
    assert total(compiled(lambda a, b: a @ b, (24, 40), (40, 56))) == 2 * 24 * 40 * 56


def test_batched_products_count_each_batch():
    module = compiled(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (3, 24, 40), (3, 40, 56))
    assert total(module) == 3 * 2 * 24 * 40 * 56


def test_the_body_of_a_loop_counts_as_often_as_it_runs_nested_ones_too():
    def loops(x, w):
        def outer(x, _):
            return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=5)[0] @ w, None

        return jax.lax.scan(outer, x, None, length=7)[0]

    assert total(compiled(loops, (24, 40), (40, 40))) == 7 * (5 + 1) * 2 * 24 * 40 * 40


def test_a_loop_that_depends_on_data_takes_what_is_expected_of_its_scope():
    def loop(x, w):
        with jax.named_scope("vocabulary_loss"):
            return jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ w, x)

    module = compiled(loop, (24, 40), (40, 40))
    assert total(module, vocabulary_loss=11) == 11 * 2 * 24 * 40 * 40
    with pytest.raises(HloError, match=r"depends on data: .*vocabulary_loss"):
        total(module)


def test_places_are_the_scopes_of_loops():
    def layers(x, w):
        with jax.named_scope("layers"):
            x, _ = jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=3)
        return x @ w

    products = [e for e in compiled(layers, (24, 40), (40, 40)).walk({}) if flops(e)]
    assert sorted((e.place, e.times) for e in products) == [("layer_loop", 3.0), ("step", 1.0)]


@pytest.mark.parametrize(("stride", "padding", "meetings"), [(1, "SAME", 22), (2, "VALID", 9)])
def test_a_convolution_counts_where_kernel_and_input_meet(stride, padding, meetings):
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (stride,), padding, dimension_numbers=("NWC", "WIO", "NWC"))

    lowered = jax.jit(convolve).lower(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 8, 5), (3, 5, 7))))
    # before optimisation: XLA:CPU turns convolutions into calls
    module = Module(lowered.compiler_ir("hlo").as_hlo_text())
    assert total(module) == 2 * 2 * 5 * 7 * meetings


UNROLLED = """HloModule jit_step

%condition (state: (s32[], f32[8,8])) -> pred[] {
  %state = (s32[], f32[8,8]) parameter(0)
  %counter = s32[] get-tuple-element(%state), index=0
  %bound = s32[] constant(15)
  ROOT %less = pred[] compare(%counter, %bound), direction=LT
}

%body (state: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {
  %state = (s32[], f32[8,8]) parameter(0)
  %counter = s32[] get-tuple-element(%state), index=0
  %x = f32[8,8] get-tuple-element(%state), index=1
  %two = s32[] constant(2)
  %next = s32[] add(%counter, %two)
  %y = f32[8,8] dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %done = (s32[], f32[8,8]) tuple(%next, %y)
}

ENTRY %main (start: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {
  %start = (s32[], f32[8,8]) parameter(0)
  ROOT %loop = (s32[], f32[8,8]) while(%start), condition=%condition, body=%body
}
"""


def test_an_unrolled_loop_runs_as_often_as_its_counter_advances():
    assert total(Module(UNROLLED)) == 8 * 2 * 8 * 8 * 8


def test_a_loop_without_a_name_has_the_place_of_its_body():
    named = UNROLLED.replace(
        "rhs_contracting_dims={0}\n", 'rhs_contracting_dims={0}, metadata={op_name="jvp(layers)/x"}\n'
    )
    assert [e.place for e in Module(named).walk({}) if flops(e)] == ["layer_loop"]
    assert [e.place for e in Module(UNROLLED).walk({}) if flops(e)] == ["step"]


SPLASH = """HloModule jit_step

ENTRY %main (p: bf16[28,4096,128]) -> bf16[28,4096,128] {
  %p = bf16[28,4096,128]{2,1,0} parameter(0)
  ROOT %splash_mha_PHASE.3 = bf16[28,4096,128]{2,1,0} custom-call(%p), custom_call_target="tpu_custom_call", \
operand_layout_constraints={s8[1,8,8]{2,1,0}, bf16[28,4096,128]{2,1,0}, bf16[4,8192,128]{2,1,0}}, \
frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 512, \\"block_kv\\": 1024}"
}}, metadata={op_name="jit(step)/SCOPE/pallas_call"}
}
"""


@pytest.mark.parametrize(
    ("phase", "scope", "products", "share"),
    [
        ("fwd_segmented_residuals", "full_attention", 2, 1.0),
        ("dq_segmented", "full_attention", 3, 1.0),
        # 4096 queries of a row of 8192: what the two devices that share the row compute on average
        ("dkv_segmented", "causal_attention", 4, 2 * sum(range(1, 9)) / (16 * 8)),
    ],
)
def test_an_attention_kernel_counts_the_blocks_it_visits(phase, scope, products, share):
    module = Module(SPLASH.replace("PHASE", phase).replace("SCOPE", scope))
    assert total(module) == 2 * products * 28 * 4096 * 128 * 8192 * share


def test_text_that_is_no_program_is_refused():
    with pytest.raises(HloError, match="no ENTRY"):
        Module("func.func public @main")
