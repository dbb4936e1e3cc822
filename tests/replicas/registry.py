"""Every data set's replica: a function that writes a tiny tree in the raw layout below a folder and returns the options
of that data set's converter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.replicas import medmnist

REPLICAS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "medmnist": medmnist.replica,
}
