"""docs/pods.md is true to the code: its `umit launch` lines render, and every backend and shared flag is there."""

import argparse
import pathlib
import re
import shlex

import pytest

from launch import cli, launch

ROOT = pathlib.Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "pods.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(umit launch .*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = {command[2]: command for command in (shlex.split(block.replace("\\\n", " ")) for block in BLOCKS)}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_the_commands_render(command, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert cli.main([*command[1:], "--dry-run"]) == 0, capsys.readouterr().err
    assert "configs/" in capsys.readouterr().out


@pytest.mark.parametrize("backend", launch.BACKENDS)
def test_every_backend_has_a_command_and_its_walk(backend):
    assert backend in COMMANDS
    walk = re.search(rf"^### {backend}$(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert walk is not None
    assert [word for word in ("watch", "preempt", "resume", "stop") if word not in walk[1].lower()] == []


def test_the_flags_that_all_backends_share_are_explained():
    parser = argparse.ArgumentParser()
    launch.add_arguments(parser)
    (backends,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    flags = [{flag for action in part._actions for flag in action.option_strings} for part in backends.choices.values()]
    shared = set.intersection(*flags) - {"-h", "--help", "--debug", "--json", "--name"}
    assert "--grace-seconds" in shared
    assert {flag for flag in shared if f"`{flag}" not in TEXT} == set()
