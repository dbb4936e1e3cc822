"""`--config FILE` and `--config.a.b=value`, read with ml_collections' config_flags; unknown keys are errors."""

import argparse
import ast
import pathlib
import re
import sys
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from launch.cli import UsageError, nearest

_FREE = "--config.model_overrides."  # its keys are those of the model, which checks them (ModelConfig.from_dict)


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --config and lets --config.KEY=VALUE through to `load`."""
    add_flag(parser)
    let_overrides_through(parser)


def add_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="config file; its argument after a colon")
    parser.epilog = "--config.KEY=VALUE changes one value of the config; KEY is dotted, as in data.rows"


def let_overrides_through(parser: argparse.ArgumentParser) -> None:
    """Collects --config.KEY=VALUE, wherever it stands, as args.overrides. For the outermost parser."""
    parser.set_defaults(overrides=[])
    original = parser.parse_known_args

    def parse_known_args(args=None, namespace=None):
        parsed, unknown = original(args, namespace)
        parsed.overrides = list(parsed.overrides) + [arg for arg in unknown if arg.startswith("--config.")]
        for override in parsed.overrides:
            if not re.fullmatch(r"--config\.[\w.]+=.*", override, re.DOTALL):
                raise UsageError(f"expected --config.KEY=VALUE, found {override}")
        return parsed, [arg for arg in unknown if not arg.startswith("--config.")]

    parser.parse_known_args = parse_known_args  # type: ignore[method-assign]


def load(file: str, overrides: list[str]) -> ml_collections.ConfigDict:
    """The config of FILE[:ARG] with the overrides applied and its references resolved."""
    path = pathlib.Path(file.split(":")[0])
    if not path.is_file():
        raise UsageError(f"--config: no such file: {path}")
    try:
        # The overrides are checked against the file's own keys before they are applied.
        base = _parse([f"--config={file}"])
        own = [override for override in overrides if not override.startswith(_FREE)]
        for override in own:
            _check_key(base, override.split("=")[0].removeprefix("--config."))
        config = ml_collections.ConfigDict(_parse([f"--config={file}", *own]).copy_and_resolve_references())
        for override in overrides:
            if override.startswith(_FREE):
                _check_key(base, "model_overrides")
                _set_free(config.model_overrides, override)
        return config
    except UsageError:
        raise
    except (flags.Error, TypeError, ValueError, AttributeError, KeyError, SyntaxError) as error:
        raise UsageError(f"--config={file}: {_said(error)}") from error


def _said(error: BaseException) -> str:
    """The error in one line; of one in the config file, which comes as the text of its traceback, the last."""
    text = str(error)
    if "Traceback (most recent call last)" in text:
        text = text.strip().splitlines()[-1].removeprefix("ValueError: ")
    return " ".join(text.split())


def _parse(arguments: list[str]) -> ml_collections.ConfigDict:
    """The config that the arguments give. config_flags looks for overrides in sys.argv, so that is what it gets."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, lock_config=True)
    before = sys.argv
    sys.argv = ["umit", *arguments]
    try:
        values(sys.argv)
    finally:
        sys.argv = before
    return values["config"].value


def _set_free(overrides: ml_collections.ConfigDict, override: str) -> None:
    """Sets model_overrides.a.b of an override, whether or not the config has it."""
    key, _, text = override.removeprefix(_FREE).partition("=")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise UsageError(f"{_FREE}{key}: expected a number, True, False, 'text' or a tuple, found {text!r}") from error
    *groups, last = key.split(".")
    with overrides.unlocked():
        for group in groups:
            if not isinstance(overrides.get(group), ml_collections.ConfigDict):
                overrides[group] = ml_collections.ConfigDict(overrides.get(group))
            overrides = overrides[group]
        overrides[last] = value


def _check_key(config: ml_collections.ConfigDict, dotted: str) -> None:
    node: Any = config
    seen = ""
    for part in dotted.split("."):
        known = list(node.keys()) if isinstance(node, ml_collections.ConfigDict) else []
        if part not in known:
            raise UsageError(f"--config.{dotted}: no key {part!r} in config{seen}{nearest(part, known)}")
        node, seen = node[part], f"{seen}.{part}"
