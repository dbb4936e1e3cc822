"""What is unpacked or hashed with a key stays below the test's own folder."""

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UMIT_CACHE", str(tmp_path / "umit_cache"))
