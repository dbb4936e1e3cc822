"""What the backends that hand a run to a scheduler share: flags, the files they write, the commands they execute.

Nothing secret is ever written: an --env that looks like a secret is refused, and --secret names a variable whose value
each backend takes from where its scheduler keeps such things (docs/pods.md).
"""

import argparse
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from launch.cli import FAILED, UsageError
from launch.pods.run import Rendered, Run


class SubmitError(RuntimeError):
    """The scheduler's own command failed; it has said why."""

    exit_status = FAILED


def add_arguments(parser: argparse.ArgumentParser, *, image: str, mount: str = "", max_restarts: int = 3) -> None:
    """image: what --image does here. mount: what --mount mounts here; without it there is no such flag."""
    parser.add_argument("--image", default="", help=image)
    if mount:
        parser.add_argument("--mount", action="append", default=[], metavar="SOURCE:/PATH", help=mount)
    parser.add_argument("--out", default="umit-launch", metavar="DIR", help="for what is rendered (%(default)s)")
    parser.set_defaults(max_restarts=max_restarts)


def start(rendered: Rendered, backend: str, secrets: Sequence[str] = ()) -> dict[str, Any]:
    """Writes the files and executes the commands, each after the one before has succeeded. Raises SubmitError.

    secrets: those that the commands take from the environment of this one.
    """
    have_secrets(secrets)
    for command in rendered.commands:
        if shutil.which(command.argv[0]) is None:
            raise UsageError(f"umit launch {backend} needs the program {command.argv[0]}; --dry-run does without")
    write(rendered.files)
    output = []
    for command in rendered.commands:
        with subprocess.Popen(command.argv, env={**os.environ, **dict(command.env)}, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for line in process.stdout:
                text = line.decode(errors="replace").rstrip("\n")
                print(text, flush=True)
                output.append(text)
        if process.returncode:
            raise SubmitError(f"{shlex.join(command.argv[:3])} ... ended with exit status {process.returncode}")
    return {"files": list(rendered.files), "output": output}


def have_secrets(names: Sequence[str]) -> None:
    for name in names:
        if name not in os.environ:
            raise UsageError(f"--secret: {name} is not in the environment")


def write(files: Mapping[str, str]) -> None:
    """Each file whole or not at all."""
    for name, text in files.items():
        path = pathlib.Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as aside:
            aside.write(text)
        pathlib.Path(aside.name).replace(path)


def shared_workdir(run: Run, *, mounted: bool = False) -> None:
    """Refuses a workdir that hosts would understand differently. mounted: all else of a host is lost with it."""
    expected = "gs://... or a path below one of --mount" if mounted else "gs://... or an absolute path all hosts see"
    path = pathlib.PurePath(run.workdir)
    known = any(path.is_relative_to(seen) for _, seen in run.mounts) if mounted else path.is_absolute()
    if not (known or run.workdir.startswith("gs://")):
        raise UsageError(f"--workdir: expected {expected}, found {run.workdir!r}")


def image_needed(run: Run, backend: str) -> None:
    if not run.image:
        raise UsageError(f"--image: umit launch {backend} needs a container image that holds umit, found none")


def image_to_mount_into(run: Run) -> None:
    if run.mounts and not run.image:
        raise UsageError(
            "--mount: without --image the processes see what their machine mounts: expected --image as well"
        )


def one_line(flag: str, text: str) -> str:
    """text, which must be one line: it becomes one line of a script."""
    if re.search(r"[\r\n\0]", text):
        raise UsageError(f"{flag}: expected one line, found {text!r}")
    return text
