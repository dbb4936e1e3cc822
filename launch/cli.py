"""The `umit` command: one table of commands, one place for exit statuses, summaries and error lines.

A command is a module of this package with `add_arguments(parser)` and `run(args) -> summary dict`, or None in a process
for which another one speaks. Modules are imported only when asked for, so that `umit --help` answers at once.

| exit status | meaning                                                             |
| 0           | done                                                                |
| 1           | failed (training diverged, disk full, ...)                          |
| 2           | wrong usage or bad input: one line names the file, field or flag    |
| 70          | hung: the watchdog of a training run ended it                       |
| 75          | preempted after a saved checkpoint: run the same command again      |
"""

import argparse
import difflib
import importlib
import itertools
import json
import logging
import os
import sys
import time
from typing import Any, NoReturn

from data_pipelines.paths import as_path
from launch import summary

COMMANDS = {
    "quickstart": ("launch.quickstart", "the whole path on embedded data on one CPU: prepare, train, eval, export"),
    "prepare": ("launch.prepare", "raw dataset -> Record shards and manifest.json"),
    "inspect": ("launch.inspect", "what is in a shard set, a checkpoint or a Hugging Face directory"),
    "train": ("launch.train", "one training stage; the same command again resumes"),
    "eval": ("launch.evaluate", "generate answers on held-out records and score them"),
    "score": ("launch.score", "score a predictions.jsonl again, without a model"),
    "predict": ("launch.predict", "one question about PNG, JPEG, TIFF, DICOM or NIfTI files"),
    "launch": ("launch.launch", "the same training run as several processes or on a cluster"),
    "export": ("launch.export", "checkpoint -> Hugging Face directory"),
    "compile": ("launch.compile", "compile the training step for a TPU slice, without one: memory, FLOPs, time"),
    "import": ("launch.import_hf", "Hugging Face directory -> checkpoint"),
}
FAILED, USAGE, PREEMPTED = 1, 2, 75


class UsageError(ValueError):
    """Wrong usage or bad input; the message is one line that names the file, field or flag."""


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors which name the nearest known flag."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    def parse_args(self, args=None, namespace=None):  # type: ignore[override]
        args = sys.argv[1:] if args is None else list(args)
        known = [option for action in self._every_action() for option in action.option_strings]
        words = itertools.takewhile(lambda word: word != "--", args)
        flags = [word.split("=")[0] for word in words if word.startswith("--") and not word.startswith("--config.")]
        # A misspelt flag is named first: argparse would rather say that the right one is missing.
        unknown = [flag for flag in flags if flag not in known]
        if not unknown:
            parsed, unknown = self.parse_known_args(args, namespace)
            if not unknown:
                return parsed
        raise UsageError(f"unknown argument {unknown[0]}{nearest(unknown[0].split('=')[0], known)}")

    def _every_action(self) -> list[argparse.Action]:
        """Also of a command's parts, as of `umit launch local`."""
        parts = [p for a in self._actions if isinstance(a, argparse._SubParsersAction) for p in a.choices.values()]
        return self._actions + [action for part in parts for action in part._actions]


def nearest(name: str, known: list[str]) -> str:
    """A hint ` (did you mean X?)`, or nothing where no known name is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _overview() -> str:
    lines = ["usage: umit COMMAND [flags]", "", "commands:"]
    lines += [f"  {name:<11} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join([*lines, "", "umit COMMAND --help explains each."])


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0 if argv else USAGE
    if argv[0] == "--version":
        from umit_jax import __version__

        print(__version__)
        return 0
    if argv[0] not in COMMANDS:
        print(f"umit: unknown command {argv[0]!r}{nearest(argv[0], list(COMMANDS))}", file=sys.stderr)
        return USAGE
    debug = "--debug" in argv
    try:
        return _run(argv[0], argv[1:])
    except KeyboardInterrupt:
        print(f"umit {argv[0]}: interrupted; run the same command again", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            raise
        print(f"umit {argv[0]}: {_one_line(error)}", file=sys.stderr)
        return _status(error)


def _run(command: str, argv: list[str]) -> int:
    _, text = COMMANDS[command]
    module = importlib.import_module(COMMANDS[command][0])
    parser = _Parser(prog=f"umit {command}", description=text, allow_abbrev=False)
    module.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as the last line of stdout")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    # The host side logs to stderr; third-party libraries only from warnings up, and never a file's header values.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    importlib.import_module("absl.logging")  # before its logger is asked for: it must be made by absl's own class
    for noisy in ("absl", "jax", "orbax", "pydicom", "tensorflow_datasets", "grain"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    started = time.monotonic()
    result: dict[str, Any] | None = module.run(args)
    if result is None:
        return 0
    full = summary.complete(command, vars(args), result, time.monotonic() - started)
    out = getattr(args, "out", None) or getattr(args, "workdir", None)
    if out and as_path(out).is_dir():
        summary.write(as_path(out), full)
    if args.json:
        print(json.dumps(full, ensure_ascii=False), flush=True)
    return 0


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return text if _is_ours(error) or isinstance(error, OSError) else f"{type(error).__name__}: {text}"


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] in ("umit_jax", "data_pipelines", "launch", "configs")


def _status(error: BaseException) -> int:
    """Bad input (ValueErrors of our own packages, absent files) is 2; anything else failed, if it does not say."""
    if _is_ours(error) and hasattr(error, "exit_status"):
        return error.exit_status  # type: ignore[attr-defined]
    if "No space left on device" in str(error):
        return FAILED
    if type(error).__name__ == "Preempted":
        return PREEMPTED
    if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
        return USAGE
    return USAGE if _is_ours(error) and isinstance(error, ValueError) else FAILED


def entry() -> None:
    """Console script. A reader that closes the pipe early (`umit ... | head`) is no error."""
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    if status not in (0, PREEMPTED) and "jax" in sys.modules:
        from launch.processes import leave

        leave(status)
    sys.exit(status)
