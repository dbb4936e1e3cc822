"""Option likelihood equals that of a plain forward pass over prompt and answer, whatever else is in the batch."""

import jax
import numpy as np
import pytest

from tests.infer.test_buckets import CONFIG, make_prompt
from tests.infer.test_generate import logits
from umit_jax.batch import empty_batch
from umit_jax.infer.buckets import answer_all
from umit_jax.infer.score import mean_probability, pack, probabilities, slots_of
from umit_jax.model.param import init_params

END = 7
KINDS = [(9, 4), (20, 0), (5, 0), (40, 24)]
OPTIONS = [
    [[11, 12, 13, END], [11, 12, 14, END], [21, END]],  # two that begin alike, one that is short
    [],  # a question without options
    [[END], [31, 32, END]],  # one that is nothing but its end
    [[40 + i, 50, END] for i in range(7)],
]


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda x: 4 * x if x.ndim > 2 else x, init_params(CONFIG, jax.random.key(0)))


def plain(params, prompt, answer) -> float:
    """log p(answer | prompt) from one forward pass of the whole text, in plain log-softmax."""
    length, new = len(prompt.tokens_S), len(answer)
    batch = empty_batch(1, 64, 96, CONFIG.vision.patch_values)
    batch.tokens_BS[0, : length + new] = [*prompt.tokens_S, *answer]
    batch.segments_BS[0, : length + new] = 1
    batch.positions_BS3[0, :length] = prompt.positions_S3
    batch.positions_BS3[0, length : length + new] = prompt.positions_S3.max() + 1 + np.arange(new)[:, None]
    batch.vision_index_BS[0, :length] = prompt.vision_index_S
    for field, values in (
        (batch.patches_BPC, prompt.patches_PC),
        (batch.patch_hw_BP2, prompt.patch_hw_P2),
        (batch.patch_segments_BP, prompt.patch_segments_P),
    ):
        field[0, : len(values)] = values
    logits_SV = np.asarray(logits(CONFIG, params, batch), np.float64)[0]
    logps_SV = logits_SV - np.logaddexp.reduce(logits_SV, axis=-1, keepdims=True)
    return sum(logps_SV[length - 1 + i, token] for i, token in enumerate(answer))


def test_an_option_is_as_likely_as_a_plain_forward_pass_says_of_the_whole_answer(params):
    prompts = [make_prompt(*kind, seed=i) for i, kind in enumerate(KINDS)]
    answers = answer_all(CONFIG, params, prompts, max_new_tokens=3, eos_ids=(END,), options=OPTIONS, rows=3, shapes=2)
    for prompt, options, answer in zip(prompts, OPTIONS, answers, strict=True):
        expected = [plain(params, prompt, option) for option in options]
        assert (answer.options or []) == pytest.approx(expected, abs=1e-5, rel=1e-5)
        said = [plain(params, prompt, answer.tokens[: i + 1]) for i in range(len(answer.tokens))]
        assert answer.logps == pytest.approx(np.diff([0, *said]), abs=1e-4)


def test_scoring_changes_no_answer_and_one_batch_reads_its_prompts_once(params):
    prompts = [make_prompt(*kind, seed=i) for i, kind in enumerate(KINDS)]
    asked = {"max_new_tokens": 3, "eos_ids": (END,), "rows": 4, "shapes": 1}
    without, scored = (
        answer_all(CONFIG, params, prompts, **asked),
        answer_all(CONFIG, params, prompts, options=OPTIONS, **asked),
    )
    assert [answer.tokens for answer in scored] == [answer.tokens for answer in without]
    assert [answer.options is None for answer in scored] == [not options for options in OPTIONS]


def test_options_lie_side_by_side_without_their_last_tokens():
    packed = pack([OPTIONS[0], []], rows=3, most=3, slots=8)
    assert slots_of(OPTIONS[0]) == 7
    assert packed.first_BO.tolist() == [[11, 11, 21], [0] * 3, [0] * 3]
    assert packed.tokens_BM[0].tolist() == [11, 12, 13, 11, 12, 14, 21, 0]
    assert packed.targets_BM[0].tolist() == [12, 13, END, 12, 14, END, END, 0]
    assert packed.branches_BM[0].tolist() == [1, 1, 1, 2, 2, 2, 3, 0]
    assert packed.offsets_BM[0].tolist() == [0, 1, 2, 0, 1, 2, 0, 0]
    assert not packed.branches_BM[1:].any()


def test_probabilities_sum_to_one_and_do_not_show_a_rounding_of_the_devices():
    logps = [-0.3, -2.0004, -60.0]
    found = probabilities(logps)
    assert sum(found) == pytest.approx(1)
    assert found == pytest.approx(np.exp(logps) / np.exp(logps).sum(), rel=1e-3)
    assert probabilities([logp + 2e-6 for logp in logps]) == found
    assert 0 < found[2] < 1e-25  # rank is kept however unlikely
    assert mean_probability(np.log([0.5, 0.125])) == pytest.approx(0.25, rel=1e-3)
