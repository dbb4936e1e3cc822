"""Secrets never get into what `umit launch` renders, whatever the backend."""

import pytest

from launch import cli
from tests.launch.conftest import CONFIGS

CONFIG = f"{CONFIGS / 'quickstart.py'}:stage1"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--env", "HF_TOKEN=abcdef"], "--env HF_TOKEN: looks like a secret"),
        (["--env", "wandb_api_key=abcdef"], "expected --secret wandb_api_key"),
        (["--env", "A=hf_abcdefghijklmnopqrstuvwx"], "--env: holds what looks like a secret"),
        (["--config.tokenizer=https://me:abcdef@host/x"], "--config.KEY=VALUE: holds what looks like a secret"),
        (["--image", "https://me:abcdef@registry/umit"], "--image: holds what looks like a secret"),
        (["--secret", "HF TOKEN"], "--secret: expected NAME, found 'HF TOKEN'"),
        (["--env", "UMIT_PROCESS=3"], "--env: expected NAME=VALUE, found 'UMIT_PROCESS'"),
    ],
)
def test_what_looks_like_a_secret_is_refused_without_being_repeated(flags, said, capsys):
    assert cli.main(["launch", "slurm", "--config", CONFIG, "--workdir", "/run", "--dry-run", *flags]) == 2
    written = capsys.readouterr()
    assert said in written.err
    assert "abcdef" not in written.err + written.out


@pytest.mark.parametrize("setting", ["TOKENIZERS_PARALLELISM=false", "MAX_TOKENS=3", "MONKEY=1", "URL=gs://a@b/c"])
def test_what_only_sounds_like_a_secret_is_let_through(setting, capsys):
    flags = ["--config", CONFIG, "--workdir", "/run", "--dry-run", "--env", setting]
    assert cli.main(["launch", "slurm", *flags]) == 0
    assert f"export {setting}\n" in capsys.readouterr().out
