"""Every family equals transformers: logits, gradients, packed loss, on random models of several shapes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import oracle  # noqa: E402

from umit_jax.convert.keymap import hub_name, tensors, to_hf  # noqa: E402
from umit_jax.model.param import bind  # noqa: E402
from umit_jax.model.vision import normalise  # noqa: E402
from umit_jax.ops.loss import token_nll  # noqa: E402

# rows of samples; a sample is a list of parts (see oracle.make_sample)
CASES = {
    "text": [[[17]]],
    "image": [[[5, (84, 56), 9]]],
    "two images": [[[4, (56, 112), 3, (84, 28), 6]]],
    "video": [[[3, (4, 56, 84), 8]]],
    "packed": [[[6, (56, 84), 5], [11], [2, (2, 56, 28), 4, (4, 28, 56), 3]], [[3, (28, 28), 2, (56, 56), 7], [9]]],
}
SIZE = {"tokens": 64, "patches": 64}  # of every batch, so that each program compiles once per model


@functools.cache
def models(shape: str):
    model = oracle.torch_model(shape)
    config, params = oracle.our_params(model)

    def logits(params, batch):
        bound = bind(config, params)
        return bound.hidden(batch) @ bound.head_VD().T

    def loss(params, batch):
        bound = bind(config, params)
        x_BSD = bound.hidden(batch, remat="full")
        nll_BS = token_nll(x_BSD, bound.head_VD(), batch.targets_BS, batch.weights_BS, 16)
        return jnp.sum(nll_BS * batch.weights_BS)

    return model, config, params, jax.jit(logits), jax.jit(jax.value_and_grad(loss))


def make_rows(model, case: str) -> list[list[oracle.Sample]]:
    rows = [
        [oracle.make_sample(model, parts, seed=10 * b + i) for i, parts in enumerate(row)]
        for b, row in enumerate(CASES[case])
    ]
    return rows + [[]] * (2 - len(rows))  # two rows always; an empty one is padding only


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", oracle.SHAPES)
def test_logits_equal_those_of_transformers(shape, case):
    model, _, params, run, _ = models(shape)
    rows = make_rows(model, case)
    logits = np.asarray(run(params, oracle.pack(rows, **SIZE)))
    for b, row in enumerate(rows):
        start = 0
        for sample in row:
            with torch.no_grad():
                expected = model(**sample.inputs).logits[0].numpy()
            found = logits[b, start : start + len(expected)]
            start += len(expected)
            assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", oracle.SHAPES)
def test_gradients_equal_those_of_transformers(shape, case):
    model, config, params, _, run = models(shape)
    rows = make_rows(model, case)
    model.zero_grad()
    for sample in (s for row in rows for s in row):
        logits = model(**sample.inputs).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, torch.tensor(sample.tokens[1:]), reduction="sum").backward()
    expected = {hub_name(name): param.grad for name, param in model.named_parameters()}

    ours = jax.tree.map(np.asarray, run(params, oracle.pack(rows, **SIZE))[1])
    for tensor in tensors(config):
        found = functools.reduce(dict.__getitem__, tensor.entry.path.split("/"), ours)
        found = to_hf(tensor, found if tensor.layer is None else found[tensor.layer])
        if expected[tensor.name] is None:  # text only: transformers does not run the vision tower
            assert not found.any(), tensor.name
        else:
            want = expected[tensor.name].numpy()
            assert np.linalg.norm(found - want) <= 1e-5 * np.linalg.norm(want), tensor.name


@pytest.mark.parametrize("shape", ["mqa6-untied", "2.5-mqa6-untied"])
def test_loss_of_a_packed_row_equals_its_samples_alone(shape):
    model, _, params, _, run = models(shape)
    rows = make_rows(model, "packed")
    packed, _ = run(params, oracle.pack(rows, **SIZE))
    alone = [run(params, oracle.pack([[sample], []], **SIZE))[0] for row in rows for sample in row]
    assert abs(packed - sum(alone)) <= 1e-6 * abs(packed)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("shape", ["gqa2-tied", "2.5-gqa2-tied"])
def test_packed_loss_equals_the_packed_loss_of_transformers(shape, attention):
    model = oracle.torch_model(shape, attention)
    _, _, params, _, run = models(shape)
    rows = [[oracle.make_sample(model, [7], 1), oracle.make_sample(model, [5, (56, 84), 6], 2)], []]
    ours, _ = run(params, oracle.pack(rows, **SIZE))
    first, second = rows[0]
    inputs = {key: value for key, value in second.inputs.items() if key not in ("input_ids", "mm_token_type_ids")}
    text = [torch.arange(len(sample.tokens)) for sample in rows[0]]
    positions = [torch.cat([t[None], torch.tensor(s.positions_S3.T)]) for t, s in zip(text, rows[0], strict=True)]
    labels = torch.tensor([-100, *first.tokens[1:], -100, *second.tokens[1:]])
    with torch.no_grad():
        logits = model(
            input_ids=torch.cat([first.inputs["input_ids"], second.inputs["input_ids"]], dim=1),
            mm_token_type_ids=torch.cat([s.inputs["mm_token_type_ids"] for s in rows[0]], dim=1),
            position_ids=torch.cat(positions, dim=1)[:, None],
            use_cache=False,
            **inputs,
        ).logits[0]
    theirs = torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="sum")
    assert abs(ours - float(theirs)) <= 1e-6 * abs(ours)


def test_pixels_on_the_device_equal_the_processors():
    model, config, *_ = models("gqa2-tied")
    sample = oracle.make_sample(model, [2, (84, 56), 3, (4, 28, 56)])
    found = np.asarray(normalise(sample.patches_PC[None], config))[0]
    np.testing.assert_allclose(found, sample.pixel_values, rtol=0, atol=1e-6)


def test_windows_and_layers_without_them_both_count():
    """What the logits' parity rests on: the images of its cases have several windows, and some layers see past them."""
    model, config, params, run, _ = models("2.5-gqa2-tied")
    batch = oracle.pack(make_rows(model, "image"), **SIZE)
    logits = np.asarray(run(params, batch))
    for change in ({"full_layers": ()}, {"full_layers": (0, 1, 2)}, {"window_size": 28}):
        changed = dataclasses.replace(config, vision=dataclasses.replace(config.vision, **change))
        bound = bind(changed, params)
        other = np.asarray(bound.hidden(batch) @ bound.head_VD().T)
        assert np.abs(other - logits).max() > 1e-2 * np.abs(logits).max()


@pytest.mark.parametrize("attention", ["xla", "blockwise"])
def test_the_order_of_patches_is_free(attention):
    """The host brings patches window by window for speed alone: any order that keeps blocks of four gives the same."""
    model, config, params, *_ = models("2.5-gqa2-tied")
    batch = oracle.pack(make_rows(model, "packed"), **SIZE)
    order_M = np.random.default_rng(0).permutation(SIZE["patches"] // 4)
    order_P = (order_M[:, None] * 4 + np.arange(4)).reshape(-1)
    index_BS = batch.vision_index_BS
    shuffled = batch._replace(
        patches_BPC=batch.patches_BPC[:, order_P],
        patch_hw_BP2=batch.patch_hw_BP2[:, order_P],
        patch_segments_BP=batch.patch_segments_BP[:, order_P],
        vision_index_BS=np.where(index_BS >= 0, np.argsort(order_M)[index_BS], -1).astype(np.int32),
    )
    bound = bind(config, params)
    expected, found = (np.asarray(bound.hidden(b, attention=attention)) for b in (batch, shuffled))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
