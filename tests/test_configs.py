"""Every number of a config does something: a key that no code reads is a promise nobody keeps."""

import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import eval as eval_config
from configs import stage1_align, stage2_instruct, stage2_lora
from umit_jax.train.workdir import _flat

ROOT = Path(__file__).parent.parent


def code() -> str:
    files = [p for room in ("umit_jax", "data_pipelines", "launch") for p in sorted((ROOT / room).rglob("*.py"))]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def keys(config: ConfigDict) -> list[str]:
    return sorted(_flat(config.to_dict()))


@pytest.mark.parametrize("config", [stage1_align, stage2_instruct, stage2_lora, eval_config], ids=lambda m: m.__name__)
def test_every_key_of_a_config_is_read(config):
    """As an attribute somewhere, or as part of a group that is read whole."""
    text = code()
    whole = ("mesh", "max_new_tokens", "model_overrides")
    found = keys(config.get_config())
    assert len(found) > 5
    for key in found:
        group, _, name = key.rpartition(".")
        group = group.rpartition(".")[2]
        read = group if group in whole else name
        assert re.search(rf"\.{read}\b(?!\()", text), f"nothing reads config.{key}"
