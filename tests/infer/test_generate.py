"""Generation with a cache equals choosing, over and over, the likeliest next token of the whole sequence."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from configs.sizes import SIZES
from umit_jax.batch import Batch, empty_batch
from umit_jax.infer import generate as generate_module
from umit_jax.infer.generate import Rules, generate
from umit_jax.infer.sampling import Sampling, row_keys
from umit_jax.model import lora
from umit_jax.model.config import ModelConfig
from umit_jax.model.param import bind, init_params
from umit_jax.model.quantize import dequantise, quantise
from umit_jax.parallel.mesh import batch_sharding, make_mesh, replicated

CONFIG = ModelConfig.from_dict(SIZES["tiny"])
NEW = 10


@functools.cache
def params():
    """Random weights, the layers louder than the embedding: an untrained tied model repeats its last token."""
    return jax.tree.map(lambda x: 4 * x if x.ndim > 2 else x, init_params(CONFIG, jax.random.key(0)))


def prompts(lengths, tokens, patches=0, seed=0) -> Batch:
    """Right-padded rows; with patches, each row has an image of (patches // 8) x 2 merged patches at token 1."""
    rng = np.random.default_rng(seed)
    batch = empty_batch(len(lengths), tokens, patches, CONFIG.vision.patch_values)
    for row, length in enumerate(lengths):
        batch.tokens_BS[row, :length] = rng.integers(0, 500, length)
        batch.positions_BS3[row, :length] = np.arange(length)[:, None]
        batch.segments_BS[row, :length] = 1
        merged = patches // 4
        if merged:
            span = slice(1, 1 + merged)
            grid = np.stack(np.broadcast_arrays(0, *np.mgrid[: merged // 2, :2]), -1).reshape(-1, 3)
            batch.tokens_BS[row, span] = CONFIG.image_token_id
            batch.vision_index_BS[row, span] = np.arange(merged)
            batch.positions_BS3[row, span] = 1 + grid
            batch.positions_BS3[row, span.stop : length] = 1 + merged // 2 + np.arange(length - span.stop)[:, None]
            batch.patches_BPC[row] = rng.integers(0, 256, batch.patches_BPC.shape[1:])
            batch.patch_hw_BP2[row] = rng.integers(0, 4, (patches, 2))
            batch.patch_segments_BP[row] = 1
    return batch


@functools.partial(jax.jit, static_argnums=0)
def logits(config, params, batch):
    model = bind(config, params)
    return model.hidden(batch) @ model.head_VD().T


def without_cache(batch: Batch, new: int) -> list[list[int]]:
    """Each answer by running the whole sequence again for every token."""
    wide = empty_batch(
        len(batch.tokens_BS), batch.tokens_BS.shape[1] + new, batch.patches_BPC.shape[1], CONFIG.vision.patch_values
    )
    for ours, theirs in zip(wide, batch, strict=True):
        ours[:, : theirs.shape[1]] = theirs
    answers = [[] for _ in wide.tokens_BS]
    for _ in range(new):
        rows = np.asarray(logits(CONFIG, params(), wide))
        for row, answer in enumerate(answers):
            length = int(wide.segments_BS[row].sum())
            token = int(rows[row, length - 1].argmax())
            answer.append(token)
            wide.tokens_BS[row, length] = token
            wide.positions_BS3[row, length] = wide.positions_BS3[row, :length].max() + 1
            wide.segments_BS[row, length] = 1
    return answers


@pytest.mark.parametrize("patches", [0, 16])
def test_the_cache_changes_no_token_whatever_the_lengths_of_the_prompts(patches):
    batch = prompts([6, 12, 9], 16, patches)
    tokens_BN, lengths_B, *_ = generate(CONFIG, params(), batch, max_new_tokens=NEW, eos_ids=())
    expected = without_cache(batch, NEW)
    assert tokens_BN.tolist() == expected
    assert lengths_B.tolist() == [NEW] * 3
    assert len({token for answer in expected for token in answer}) > 8


ALL = [NEW] * 8
LEAVING = [2, 3, 4, 10, 1, 2, 9, 0]  # five of eight rows leave before there are four tokens


@pytest.mark.parametrize(
    ("wanted", "axes", "other", "rooms", "growths"),
    [
        (ALL, None, {}, [(8, 4), (8, 8), (8, 10)], 2),
        (LEAVING, None, {}, [(8, 4), (4, 4), (4, 8), (4, 10)], 2),
        (LEAVING, {"data": 2, "tensor": 2}, {}, [(8, 4), (4, 4), (4, 8), (4, 10)], 2),
        (ALL, None, {"ended": lambda said: len(said) > 6}, [(8, 4), (8, 4), (8, 8), (8, 8)], 1),  # seen at the eighth
        (ALL, None, {"sampling": Sampling(1.0), "keys_B2": row_keys(0, "abcdefgh")}, [(8, 4), (8, 8), (8, 10)], 2),
        ([4, 3, 4, 4, 4, 4, 4, 4], None, {}, [(8, 4)], 0),  # full, and nobody goes on
    ],
)
def test_a_cache_that_is_full_grows_and_no_token_changes(monkeypatch, wanted, axes, other, rooms, growths):
    batch, weights, mesh = prompts([6, 12, 9, 4, 5, 7, 8, 10], 16), params(), None
    arguments = {"max_new_tokens": NEW, "eos_ids": (), "limits_B": wanted, **other}
    monkeypatch.setattr(generate_module, "_LOOK", 2)
    whole = generate(CONFIG, weights, batch, **arguments)
    if axes:
        mesh = make_mesh(axes, jax.devices()[:4])
        batch, weights = jax.device_put(batch, batch_sharding(mesh)), jax.device_put(weights, replicated(mesh))
    seen, grown_to, decode, grow = [], [], generate_module.decode, generate_module._grown
    parts = (2, 2) if axes else (1, 1)

    def watched(config, params, layers, state, *rest, **how):
        rows, room = state.tokens_BN.shape
        assert state.cache.filled_BT.shape == (rows, 16 + room)
        seen.append((rows, room))
        for array in jax.tree.leaves(state.cache.layers):
            held = array.addressable_shards[0].data.shape
            assert held == (rows // parts[0], array.shape[1] // parts[1], *array.shape[2:])
        return decode(config, params, layers, state, *rest, **how)

    def counted(state, *, room, mesh):
        grown_to.append(room)
        return grow(state, room=room, mesh=mesh)

    monkeypatch.setattr(generate_module, "decode", watched)
    monkeypatch.setattr(generate_module, "_grown", counted)
    monkeypatch.setattr(generate_module, "_ROOM", 4)
    monkeypatch.setattr(generate_module, "_GROWTH", 2)
    grown = generate(CONFIG, weights, batch, mesh=mesh, **arguments)
    assert seen == rooms
    assert len(grown_to) == growths
    np.testing.assert_array_equal(grown.tokens_BN, whole.tokens_BN)
    np.testing.assert_array_equal(grown.lengths_B, whole.lengths_B)
    np.testing.assert_allclose(grown.logps_BN, whole.logps_BN, atol=1e-5)


def test_a_cache_has_room_for_everything_at_once_where_a_step_costs_reading_the_weights(monkeypatch):
    assert generate_module._room(64, 256) == 64
    assert generate_module._room(256, 200) == 200
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert generate_module._room(64, 256) == 256


def test_more_padding_and_other_rows_change_no_token():
    alone = prompts([7], 7)
    wide = prompts([7, 30, 0], 32)
    wide.tokens_BS[0, :7] = alone.tokens_BS[0]
    options = {"max_new_tokens": NEW, "eos_ids": ()}
    assert (
        generate(CONFIG, params(), alone, **options)[0].tolist()[0]
        == generate(CONFIG, params(), wide, **options)[0].tolist()[0]
    )


def test_a_row_stops_before_its_first_end_token_and_the_others_go_on():
    batch = prompts([6, 12, 9], 16)
    free, *_ = generate(CONFIG, params(), batch, max_new_tokens=NEW, eos_ids=())
    ends = (int(free[0, 3]), 511)
    tokens_BN, lengths_B, *_ = generate(CONFIG, params(), batch, max_new_tokens=NEW, eos_ids=ends)
    for row in range(3):
        stops = [i for i, token in enumerate(free[row].tolist()) if token in ends]
        expected = stops[0] if stops else NEW
        assert lengths_B[row] == expected
        assert tokens_BN[row, : expected + 1].tolist() == free[row, : expected + 1].tolist()
        assert not tokens_BN[row, expected + 1 :].any()
    assert lengths_B[0] <= 3


def test_each_row_has_its_own_limit_and_padding_rows_get_nothing():
    batch = prompts([6, 12, 0], 16)
    free, *_ = generate(CONFIG, params(), batch, max_new_tokens=NEW, eos_ids=())
    limits = np.array([2, 7, 5])
    tokens_BN, lengths_B, *_ = generate(CONFIG, params(), batch, max_new_tokens=NEW, eos_ids=(), limits_B=limits)
    assert lengths_B.tolist() == [2, 7, 0]
    assert tokens_BN[0, :2].tolist() == free[0, :2].tolist()
    assert tokens_BN[1, :7].tolist() == free[1, :7].tolist()
    assert not tokens_BN[2].any()


def test_decoding_leaves_its_loop_when_all_rows_are_done():
    batch = prompts([6, 12], 16)
    rules = Rules(np.array([3, 2], np.int32), np.array([-1], np.int32), np.zeros((2, 2), np.uint32))
    state, end = generate_module.prefill(
        CONFIG, params(), batch, rules, room=NEW, compute_dtype="float32", attention="blockwise"
    )
    state = generate_module.decode(
        CONFIG,
        params(),
        None,
        state,
        end,
        rules,
        np.int32(NEW),
        np.int32(0),
        np.zeros(2, bool),
        compute_dtype="float32",
    )
    assert int(state.count) == 3


def test_rows_whose_text_is_over_get_no_more_tokens_and_the_loop_ends_with_the_last_of_them(monkeypatch):
    asked_for, decode = [], generate_module.decode

    def counted(config, params, layers, state, end, rules, until, fewer, stopped_B, **how):
        asked_for.append((int(until), stopped_B.tolist()))
        return decode(config, params, layers, state, end, rules, until, fewer, stopped_B, **how)

    monkeypatch.setattr(generate_module, "decode", counted)
    monkeypatch.setattr(generate_module, "_LOOK", 4)
    batch, rules = prompts([6, 12, 9], 16), {"max_new_tokens": NEW, "eos_ids": ()}
    free, *_ = generate(CONFIG, params(), batch, **rules)
    last_words = [free[row, :place].tolist() for row, place in ((0, 3), (1, 6), (2, 7))]  # by the first, second look

    def ended(said):
        return any(said[: len(words)] == words for words in last_words)

    asked_for.clear()

    tokens_BN, lengths_B, *_ = generate(CONFIG, params(), batch, ended=ended, **rules)
    assert asked_for == [(4, [False] * 3), (8, [True, False, False])]
    assert lengths_B.tolist() == [4, 8, 8]
    for row, length in enumerate(lengths_B):
        assert tokens_BN[row, :length].tolist() == free[row, :length].tolist()


def test_a_shape_is_compiled_once_and_the_cache_is_updated_in_place():
    options = {"max_new_tokens": 5, "eos_ids": (1, 2)}
    programs = (generate_module.prefill, generate_module.decode)
    for seed, other in enumerate([(3, 4), (20, 2), (20, 2)]):
        if seed == 1:
            before = [program._cache_size() for program in programs]
        generate(CONFIG, params(), prompts(other, 20, seed=seed), **options)
    assert [program._cache_size() for program in programs] == before

    batch, rules = (
        prompts([4, 4], 20),
        Rules(np.full(2, 5, np.int32), np.array([1, 2], np.int32), np.zeros((2, 2), "u4")),
    )
    state, end = generate_module.prefill(
        CONFIG, params(), batch, rules, room=5, compute_dtype="float32", attention="blockwise"
    )
    rest = end, rules, np.int32(5), np.int32(0), np.zeros(2, bool)
    keys = state.cache.layers[0][0]
    compiled = generate_module.decode.lower(CONFIG, params(), None, state, *rest, compute_dtype="float32").compile()
    cache_bytes = 2 * CONFIG.text.layers * keys.nbytes
    assert compiled.memory_analysis().alias_size_in_bytes >= cache_bytes
    generate_module.decode(CONFIG, params(), None, state, *rest, compute_dtype="float32")
    assert keys.is_deleted()


def test_on_a_mesh_each_device_holds_its_rows_and_heads_of_the_cache_to_the_end():
    mesh = make_mesh({"data": 2, "tensor": 2}, jax.devices()[:4])
    batch = jax.device_put(prompts([6, 12, 9, 4], 16), batch_sharding(mesh))
    everywhere = jax.device_put(params(), replicated(mesh))
    rules = Rules(np.full(4, 3, np.int32), np.array([-1], np.int32), np.zeros((4, 2), np.uint32))
    how = {"compute_dtype": "float32", "mesh": mesh}
    state, end = generate_module.prefill(CONFIG, everywhere, batch, rules, room=3, attention="blockwise", **how)
    for _ in range(2):
        for array in jax.tree.leaves(state.cache.layers):
            rows, heads, *rest = array.shape
            assert {shard.data.shape for shard in array.addressable_shards} == {(rows // 2, heads // 2, *rest)}
        rest = end, rules, np.int32(3), np.int32(0), np.zeros(4, bool)
        state = generate_module.decode(CONFIG, everywhere, None, state, *rest, **how)


def test_packed_rows_and_no_new_tokens_are_refused():
    packed = prompts([6, 12], 16)
    packed.segments_BS[0, 3:6] = 2
    with pytest.raises(ValueError, match="segments_BS: expected one prompt a row"):
        generate(CONFIG, params(), packed, max_new_tokens=4, eos_ids=())
    with pytest.raises(ValueError, match="max_new_tokens: expected at least 1, found 0"):
        generate(CONFIG, params(), prompts([3], 4), max_new_tokens=0, eos_ids=())


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_a_model_with_adapters_generates_and_new_adapters_change_no_token(quantize):
    adapted = dataclasses.replace(CONFIG, lora=lora.Lora(4, 8, quantize=quantize, patterns=("decoder/layers/attn/.*",)))
    own = lora.start(adapted, params(), jax.random.key(1))
    flat = flatten_dict(params(), sep="/")
    for path, layout in lora.plan(adapted).quantised.items():  # the kernels that its codes stand for
        flat[path] = dequantise(*quantise(flat[path], quantize, layout), quantize, np.float32)
    base = unflatten_dict(flat, sep="/")
    batch = prompts([6, 12, 9], 16)
    expected, *_ = generate(CONFIG, base, batch, max_new_tokens=NEW, eos_ids=())
    tokens_BN, *_ = generate(adapted, own, batch, max_new_tokens=NEW, eos_ids=())
    np.testing.assert_array_equal(tokens_BN, expected)
