"""The likelihood of an option is the one transformers gives the whole answer after the whole prompt."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import oracle  # noqa: E402

from umit_jax.infer.generate import generate  # noqa: E402
from umit_jax.infer.score import pack  # noqa: E402

OPTIONS = [[3, 14, 96], [3, 15, 9, 26, 96], [5, 96]]


def their_logp(model, sample, answer) -> float:
    length = len(sample.tokens)
    inputs = dict(sample.inputs)
    text = torch.tensor([answer])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], text], 1)
    inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(text).int()], 1)
    with torch.no_grad():
        logps_SV = model(**inputs, use_cache=False).logits[0].log_softmax(-1)
    return sum(float(logps_SV[length - 1 + i, token]) for i, token in enumerate(answer))


@pytest.mark.parametrize("shape", ["gqa2-tied", "2.5-mqa6-untied"])
def test_options_are_as_likely_as_transformers_says(shape):
    model = oracle.torch_model(shape)
    config, params = oracle.our_params(model)
    samples = [oracle.make_sample(model, parts, seed=i) for i, parts in enumerate([[5, (84, 56), 9], [7]])]
    prompts = oracle.pack([[sample] for sample in samples], tokens=40, patches=64)
    options = pack([OPTIONS, OPTIONS[1:]], rows=2, most=3, slots=16)
    found = generate(config, params, prompts, max_new_tokens=1, eos_ids=(), options=options).options_BO
    assert found is not None
    for row, own in ((0, OPTIONS), (1, OPTIONS[1:])):
        expected = [their_logp(model, samples[row], answer) for answer in own]
        np.testing.assert_allclose(found[row, : len(own)], expected, rtol=1e-5, atol=1e-5)
