"""torchvision for tests that need it: transformers' video processors, and the default image processors.

Its wheel on the package index is built for the CUDA build of torch. So a test fetches that wheel, and a second Python
loads transformers with it beside whatever torch there is.
"""

import functools
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.sources.fetch import FetchError, Package, fetch

TORCHVISION = Package(
    name="torchvision",
    version="0.28.0",
    file="torchvision-0.28.0-cp311-cp311-manylinux_2_28_x86_64.whl",
    sha256="7e80f543b22503d9415e126db5f0ff3917036925e38560ee6b9ae38c571a4002",
    license="BSD-3-Clause",
)


@functools.cache
def declare_operators() -> Any:
    """Before torchvision is imported beside a torch without CUDA: its own operators cannot load, so the two that the
    import looks up are declared, for as long as what is returned lives."""
    import torch

    if torch.version.cuda is not None:
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


_FIRST = "from tests.torchvision_wheel import declare_operators\ndeclare_operators()\n"


def unpack(folder: Path) -> Path:
    """The folder with torchvision in it, for PYTHONPATH. Skips the test where there is none."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    if sys.version_info[:2] != (3, 11) or not torch.__version__.startswith("2.13."):
        pytest.skip(f"torchvision is pinned for Python 3.11 and torch 2.13, this is torch {torch.__version__}")
    try:
        wheel = fetch(TORCHVISION)
    except FetchError as error:
        pytest.skip(f"no torchvision: {error}")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return folder


def run(torchvision: Path, script: str, *arguments: object, home: Path) -> None:
    """Runs a script in a second Python that finds torchvision and this repository."""
    root = Path(__file__).parent.parent
    environment = {"PYTHONPATH": f"{torchvision}:{root}", "PATH": "", "HF_HUB_OFFLINE": "1", "HOME": str(home)}
    command = [sys.executable, "-c", _FIRST + script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
