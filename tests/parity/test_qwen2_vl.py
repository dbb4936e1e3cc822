"""The model equals transformers': logits, gradients, packed loss, on random models of several shapes."""

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

# rows of samples; a sample is a list of parts (see oracle.make_sample). Mixed image and video keep the row's order.
CASES = {
    "text": [[[17]]],
    "image": [[[5, (84, 56), 9]]],
    "two images": [[[4, (56, 112), 3, (84, 28), 6]]],
    "video": [[[3, (4, 56, 84), 8]]],
    "packed": [[[6, (56, 84), 5], [11], [2, (2, 56, 28), 4, (4, 28, 56), 3]], [[3, (28, 28), 2, (56, 56), 7], [9]]],
}


@functools.cache
def models(shape: str, attention: str = "eager"):
    model = oracle.torch_model(shape, attention)
    return model, *oracle.our_params(model)


def make_rows(model, case: str) -> list[list[oracle.Sample]]:
    return [
        [oracle.make_sample(model, parts, seed=10 * b + i) for i, parts in enumerate(row)]
        for b, row in enumerate(CASES[case])
    ]


def our_logits(config, params, batch, attention="blockwise"):
    @jax.jit
    def run(params, batch):
        model = bind(config, params)
        return model.hidden(batch, attention=attention) @ model.head_VD().T

    return np.asarray(run(params, batch))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", oracle.SHAPES)
def test_logits_equal_those_of_transformers(shape, case):
    model, config, params = models(shape)
    rows = make_rows(model, case)
    logits = our_logits(config, params, oracle.pack(rows))
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
    model, config, params = models(shape)
    rows = make_rows(model, case)
    model.zero_grad()
    for sample in (s for row in rows for s in row):
        logits = model(**sample.inputs).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, torch.tensor(sample.tokens[1:]), reduction="sum").backward()

    @jax.jit
    @jax.grad
    def grad(params, batch):
        model = bind(config, params)
        x = model.hidden(batch, remat="full")
        return jnp.sum(token_nll(x, model.head_VD(), batch.targets_BS, batch.weights_BS, 16) * batch.weights_BS)

    ours = jax.tree.map(np.asarray, grad(params, oracle.pack(rows)))
    expected = {hub_name(name): p.grad for name, p in model.named_parameters()}
    for tensor in tensors(config):
        found = ours
        for key in tensor.entry.path.split("/"):
            found = found[key]
        found = to_hf(tensor, found if tensor.layer is None else found[tensor.layer])
        if expected[tensor.name] is None:  # text only: transformers does not run the vision tower
            assert not found.any(), tensor.name
            continue
        want = expected[tensor.name].numpy()
        scale = np.linalg.norm(want)
        if "k_proj.bias" in tensor.name:  # a bias of all keys alike cancels in the softmax but for the rotation
            scale = max(scale, 1e-6)
        assert np.linalg.norm(found - want) <= 1e-5 * scale, tensor.name


def test_pixels_on_the_device_equal_the_processors():
    model, config, _ = models("gqa2-tied")
    sample = oracle.make_sample(model, [2, (84, 56), 3, (4, 28, 56)])
    found = np.asarray(normalise(sample.patches_PC[None], config))[0]
    np.testing.assert_allclose(found, sample.pixel_values, rtol=0, atol=1e-6)
