"""Values that must not be written into a rendered file or shown: refused where they are given, without repeating them.

A variable is suspect by its name (HF_TOKEN, API_KEY) or its value (the forms in which well-known services issue keys, a
private key, a password in a URL). `--secret NAME` is the way for them.
"""

import re
from collections.abc import Mapping
from typing import Any

from launch.cli import UsageError

_NAME = re.compile(r"(^|_)(TOKEN|(API|ACCESS|PRIVATE|SECRET)?_?KEY|SECRET|PASSWORD|PASSWD)(_|$)", re.IGNORECASE)
_VALUE = re.compile(
    r"""hf_[A-Za-z0-9]{20,} | gh[pousr]_[A-Za-z0-9]{20,} | github_pat_\w{20,} | sk-[\w-]{20,} | glpat-[\w-]{16,}
    | (AKIA|ASIA)[0-9A-Z]{16} | AIza[\w-]{30,} | ya29\.[\w-]{20,} | xox[abprs]-[\w-]{10,}
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY | ://[^/@\s:]+:[^/@\s]+@""",
    re.VERBOSE,
)


def refuse(flags: Mapping[str, Any]) -> None:
    """flags: what every flag of the command line was given. Raises UsageError that names the flag, not the value."""
    for text in flags.get("env") or ():
        name = text.partition("=")[0]
        if _NAME.search(name):
            raise UsageError(
                f"--env {name}: looks like a secret, and it would be written down; expected --secret {name}"
            )
    for flag, value in flags.items():
        for text in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(text, str) and _VALUE.search(text):
                written = "--config.KEY=VALUE" if flag == "overrides" else f"--{flag.replace('_', '-')}"
                raise UsageError(
                    f"{written}: holds what looks like a secret, and it would be written down; see --secret"
                )
