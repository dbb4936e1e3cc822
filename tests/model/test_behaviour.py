"""Behaviour of the model on batches: padding, packing, rematerialisation, dtypes, decoding step by step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.sizes import SIZES
from umit_jax.batch import batch_shapes, empty_batch, fake_batch
from umit_jax.infer.cache import make_cache, mark_filled, with_room
from umit_jax.model.config import ModelConfig
from umit_jax.model.param import abstract_params, bind, init_params
from umit_jax.ops.loss import token_nll

CONFIG = ModelConfig.from_dict(SIZES["tiny"])
SHAPE = {"vocab_size": CONFIG.text.vocab_size, "image_token": CONFIG.image_token_id}


@functools.cache
def params():
    return init_params(CONFIG, jax.random.key(0))


def make_batch(rows: int = 2, tokens: int = 48, patches: int = 48):
    return fake_batch(rows, tokens, patches, CONFIG.vision.patch_values, **SHAPE)


@functools.cache
def hidden(**options):
    return jax.jit(lambda params, batch: bind(CONFIG, params).hidden(batch, **options))


@pytest.mark.parametrize("size", ["2b", "7b", "72b", "qwen2.5-3b", "qwen2.5-7b", "qwen2.5-72b"])
def test_full_size_models_trace_without_memory(size):
    config = ModelConfig.from_dict(SIZES[size])
    shapes = batch_shapes(4, 4096, 2048, config.vision.patch_values)
    batch = jax.tree.map(
        lambda x, shape: jax.ShapeDtypeStruct(shape, x.dtype),
        empty_batch(1, 1, 4, config.vision.patch_values),
        shapes,
    )

    def loss(params, batch):
        model = bind(config, params)
        x_BSD = model.hidden(batch, compute_dtype=jnp.bfloat16, remat="full")
        return x_BSD, token_nll(x_BSD, model.head_VD(), batch.targets_BS, batch.weights_BS)

    x_BSD, nll_BS = jax.eval_shape(loss, abstract_params(config), batch)
    assert (x_BSD.shape, x_BSD.dtype) == ((4, 4096, config.text.width), jnp.bfloat16)
    assert (nll_BS.shape, nll_BS.dtype) == ((4, 4096), jnp.float32)


def test_padding_never_changes_a_token():
    batch = make_batch(patches=32)
    wider = jax.tree.map(
        lambda x, empty: np.concatenate([x, empty[:, x.shape[1] :]], axis=1),
        batch,
        empty_batch(2, 60, 44, CONFIG.vision.patch_values),
    )
    found, expected = hidden()(params(), wider)[:, :48], hidden()(params(), batch)
    real = np.asarray(batch.segments_BS) > 0
    np.testing.assert_allclose(found[real], expected[real], atol=2e-5)
    assert np.isfinite(hidden()(params(), wider)).all()


def test_what_stands_in_one_segment_never_reaches_another():
    batch = make_batch()
    changed = batch._replace(tokens_BS=np.where(batch.segments_BS == 1, 7, batch.tokens_BS))
    before, after = hidden()(params(), batch), hidden()(params(), changed)
    second = np.asarray(batch.segments_BS) == 2
    np.testing.assert_array_equal(before[second], after[second])
    assert (before[np.asarray(batch.segments_BS) == 1] != after[np.asarray(batch.segments_BS) == 1]).any()


def test_an_image_reaches_the_tokens_after_it_and_none_before():
    batch = make_batch()
    changed = batch._replace(patches_BPC=255 - batch.patches_BPC)
    before, after = hidden()(params(), batch), hidden()(params(), changed)
    differs = (np.asarray(before) != np.asarray(after)).any(-1)
    first = np.argmax(batch.vision_index_BS >= 0, axis=1)
    for row, start in enumerate(first):
        assert not differs[row, :start].any()
        assert differs[row, start : (batch.segments_BS[row] > 0).sum()].all()


def test_rows_without_patches_skip_the_vision_tower():
    batch = make_batch()
    text = empty_batch(2, 48, 0, CONFIG.vision.patch_values)._replace(
        tokens_BS=batch.tokens_BS, segments_BS=batch.segments_BS, positions_BS3=batch.positions_BS3
    )
    without = hidden()(params(), text)
    with_empty = hidden()(params(), batch._replace(vision_index_BS=np.full_like(batch.vision_index_BS, -1)))
    np.testing.assert_allclose(without, with_empty, atol=1e-6)


def test_what_the_backward_pass_keeps_does_not_change_gradients():
    def loss(params, batch, remat):
        model = bind(CONFIG, params)
        x_BSD = model.hidden(batch, remat=remat)
        nll = token_nll(x_BSD, model.head_VD(), batch.targets_BS, batch.weights_BS, 16)
        return jnp.sum(nll * batch.weights_BS)

    grad = jax.jit(jax.grad(loss), static_argnums=2)
    expected = grad(params(), make_batch(), "none")
    for remat in ("dots", "full"):
        found = grad(params(), make_batch(), remat)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)
    with pytest.raises(ValueError, match=r"remat: expected none \| dots \| attention \| full, found 'some'"):
        grad(params(), make_batch(), "some")


def test_bfloat16_compute_keeps_parameters_in_float32_and_stays_near():
    batch = make_batch()
    low = hidden(compute_dtype=jnp.bfloat16)(params(), batch)
    high = np.asarray(hidden()(params(), batch))
    assert low.dtype == jnp.bfloat16
    real = np.asarray(batch.segments_BS) > 0
    assert np.abs(np.asarray(low, np.float32) - high)[real].mean() < 0.05 * np.abs(high[real]).mean()


def test_prefill_and_decoding_step_by_step_give_the_states_of_training():
    batch, new = make_batch(rows=2, tokens=40, patches=32), 4
    lengths = np.array([(row > 0).sum() for row in batch.segments_BS])
    one = batch._replace(segments_BS=(batch.segments_BS > 0).astype(np.int32))  # one sample a row
    expected = np.asarray(hidden()(params(), one))
    cut = int(lengths.min()) - new
    prompt = jax.tree.map(lambda x: x[:, :cut] if x.shape[1] == 40 else x, one)

    model = bind(CONFIG, params())
    x_BSD, k, v = jax.jit(lambda batch: model.prefill(batch))(prompt)
    np.testing.assert_allclose(x_BSD, expected[:, :cut], atol=2e-5)
    assert k.shape == (CONFIG.text.layers, 2, cut, CONFIG.text.kv_heads, CONFIG.text.head_dim)

    caches, filled_BT = with_room(make_cache(k, v, prompt.segments_BS), new)
    step, layers = jax.jit(model.decode_step), model.decoder_layers()
    for slot in range(cut, cut + new):
        filled_BT = mark_filled(filled_BT, slot)
        x_BD, caches = step(layers, one.tokens_BS[:, slot], one.positions_BS3[:, slot, 0], caches, slot, filled_BT)
        np.testing.assert_allclose(x_BD, expected[:, slot], atol=2e-5)
