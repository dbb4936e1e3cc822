"""Prompts in, texts out: groups prompts of like size into few static shapes and generates greedily."""

import dataclasses
from typing import Any

import numpy as np
from tqdm import tqdm

from launch.model import LoadedModel


@dataclasses.dataclass(frozen=True)
class Question:
    """A prompt ready for the device, and how many tokens its answer may take."""

    prompt: Any  # data_pipelines.example.Example without an answer
    max_new_tokens: int


def answer(model: LoadedModel, questions: list[Question], rows: int) -> tuple[list[str], int]:
    """The greedy answer to each question, in order, and the number of shapes that were compiled.

    Prompts are sorted into buckets of token length, patch count and answer length, so that a few programs serve all.
    """
    from data_pipelines.pack import pack_rows
    from umit_jax.infer.generate import generate

    buckets: dict[tuple[int, int, int], list[int]] = {}
    for i, question in enumerate(questions):
        tokens = bucket(len(question.prompt.tokens_S), 64)
        patches = bucket(len(question.prompt.patches_PC), 64)
        buckets.setdefault((tokens, patches, question.max_new_tokens), []).append(i)
    texts = [""] * len(questions)
    with tqdm(total=len(questions), desc="answers", disable=None) as progress:
        for (tokens, patches, max_new), members in sorted(buckets.items()):
            for start in range(0, len(members), rows):
                chunk = members[start : start + rows]
                row_list = [[questions[i].prompt] for i in chunk] + [[]] * (rows - len(chunk))
                prompts = pack_rows(row_list, tokens, patches)
                out_BT, lengths_B = generate(
                    model.config, model.params, prompts, max_new_tokens=max_new, eos_ids=model.tokenizer.eos_ids
                )
                out_BT, lengths_B = np.asarray(out_BT), np.asarray(lengths_B)
                for row, i in enumerate(chunk):
                    texts[i] = decode(model, out_BT[row, : lengths_B[row]].tolist())
                progress.update(len(chunk))
    return texts, len(buckets)


def bucket(length: int, smallest: int) -> int:
    """The smallest of smallest, 2 smallest, 4 smallest, ... that holds length."""
    size = smallest
    while size < length:
        size *= 2
    return size


def decode(model: LoadedModel, ids: list[int]) -> str:
    """The text of generated ids without the end token; box and reference tokens stay."""
    ends = set(model.tokenizer.eos_ids)
    return model.tokenizer.decode([i for i in ids if i not in ends]).strip()
