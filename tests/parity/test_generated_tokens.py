"""Greedy tokens equal those of transformers' generate, which sees one prompt at a time, with its own cache."""

import argparse
import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import oracle  # noqa: E402

from umit_jax.infer.buckets import answer_all, plan, prefixes, sizes  # noqa: E402
from umit_jax.infer.generate import generate  # noqa: E402

NEW_TOKENS = 24
# prompts of one batch, so that rows have different lengths; see oracle.make_sample for the parts
PROMPTS = {
    "text": [[17], [5], [9]],
    "image": [[5, (84, 56), 9], [2, (56, 56), 3]],
    "two images": [[4, (56, 112), 3, (84, 28), 6], [2, (28, 28), 1, (112, 56), 2]],
    "video": [[3, (4, 56, 84), 8], [6]],
}
ROWS, SIZE = 3, {"tokens": 40, "patches": 64}  # of every batch, so that each program compiles once per model


@functools.cache
def models(shape: str):
    model = oracle.torch_model(shape)
    with torch.no_grad():  # layers louder than the embedding, or a random model repeats its last token for ever
        for name, param in model.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                param.mul_(8)
    return model, *oracle.our_params(model)


def their_tokens(model, sample, eos):
    with torch.no_grad():
        out = model.generate(
            **sample.inputs, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=eos, pad_token_id=0
        )
    return out[0, len(sample.tokens) :].tolist()


@pytest.mark.parametrize("case", PROMPTS)
@pytest.mark.parametrize("shape", oracle.SHAPES)
def test_greedy_tokens_equal_those_of_transformers(shape, case):
    model, config, params = models(shape)
    samples = [oracle.make_sample(model, parts, seed=i) for i, parts in enumerate(PROMPTS[case])]
    prompts = oracle.pack([[sample] for sample in samples] + [[]] * (ROWS - len(samples)), **SIZE)

    def our_tokens(eos_ids):
        tokens_BN, lengths_B, *_ = generate(config, params, prompts, max_new_tokens=NEW_TOKENS, eos_ids=eos_ids)
        assert not lengths_B[len(samples) :].any()
        return tokens_BN[: len(samples)], lengths_B[: len(samples)]

    tokens_BN, lengths_B = our_tokens(())
    expected = [their_tokens(model, sample, None) for sample in samples]
    assert tokens_BN.tolist() == expected
    assert (lengths_B == NEW_TOKENS).all()
    assert max(len(set(tokens)) for tokens in expected) > 3  # not one token for ever

    # stopping: a token that comes up in the middle of one answer ends every answer it comes up in
    eos = expected[0][NEW_TOKENS // 2]
    tokens_BN, lengths_B = our_tokens((eos,))
    for tokens, length, sample in zip(tokens_BN, lengths_B, samples, strict=True):
        theirs = their_tokens(model, sample, eos)
        assert tokens[: length + 1].tolist() == theirs
        assert length == len(theirs) - (theirs[-1] == eos)
    assert lengths_B[0] <= NEW_TOKENS // 2
    assert np.all(tokens_BN[0, lengths_B[0] + 1 :] == 0)


def prompt(sample):
    """As umit_jax.infer.buckets.Prompt."""
    index_S = np.full(len(sample.tokens), -1, np.int32)
    index_S[np.isin(sample.tokens, (oracle.IMAGE, oracle.VIDEO))] = sample.merged_V
    fields = {"tokens_S": sample.tokens, "positions_S3": sample.positions_S3, "patches_PC": sample.patches_PC}
    fields |= {"patch_hw_P2": sample.hw_P2, "patch_segments_P": sample.frame_P, "vision_index_S": index_S}
    return argparse.Namespace(**fields)


@pytest.mark.parametrize("shape", oracle.SHAPES)
def test_questions_that_share_their_images_are_answered_as_transformers_answers_each(shape):
    model, config, params = models(shape)
    samples = []
    for image, media in enumerate([[5, (84, 112)], [2, (56, 56), 3, (112, 56)], [4, (4, 56, 84)]]):
        for i in range(3):
            sample = oracle.make_sample(model, [*media, 4 + 3 * i], seed=image)
            words = np.random.default_rng([image, i]).integers(0, oracle.IMAGE, 4 + 3 * i)
            sample.inputs["input_ids"][0, -len(words) :] = torch.from_numpy(words)
            samples.append(sample)
    prompts = [prompt(sample) for sample in samples]
    limits = np.full(len(prompts), NEW_TOKENS)
    (bucket,) = plan(sizes(prompts), limits, rows=9, shapes=2, prefixes_N2=prefixes(prompts))
    assert (bucket.prefixes, bucket.rows) == (3, 9)
    found = answer_all(config, params, prompts, max_new_tokens=NEW_TOKENS, eos_ids=(), rows=9, shapes=2)
    expected = [their_tokens(model, sample, None) for sample in samples]
    assert [answer.tokens for answer in found] == expected
    assert len({tuple(tokens) for tokens in expected}) > 6
