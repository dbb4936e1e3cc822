"""A fetched archive is exactly the pinned one or nothing, and no code of a package runs on the way."""

import io
import subprocess
import tarfile
import zipfile

import pytest

from data_pipelines.sources import fetch as module
from data_pipelines.sources.fetch import FetchError, Package, cache_dir, fetch, read_members


def _sdist(setup: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        info = "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n"
        for name, text in (("PKG-INFO", info), ("setup.py", setup), ("data/x.txt", "hello")):
            member = tarfile.TarInfo(f"toy-1.0/{name}")
            member.size = len(text)
            packed.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of archives that pip is told to look in, and nowhere else; returns a function that adds one."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")

    def add(data: bytes) -> Package:
        path = folder / "toy-1.0.tar.gz"
        path.write_bytes(data)
        return Package("toy", "1.0", path.name, module.file_sha256(path), "MIT")

    return add


def _left_behind(cache) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def test_a_source_archive_arrives_without_its_setup_running(index, tmp_path):
    ran = tmp_path / "ran"
    package = index(_sdist(f"open({str(ran)!r}, 'w').close()"))
    path = fetch(package, tmp_path / "cache")
    assert read_members(path, lambda name: name.startswith("data/")) == {"data/x.txt": b"hello"}
    assert not ran.exists()
    assert _left_behind(tmp_path / "cache") == ["toy-1.0.tar.gz"]


def test_a_cached_archive_is_used_without_pip(index, tmp_path, monkeypatch):
    package = index(_sdist())
    path = fetch(package, tmp_path / "cache")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    assert fetch(package, tmp_path / "cache") == path


def test_another_archive_of_the_same_name_is_refused_and_not_kept(index, tmp_path):
    package = index(_sdist())
    index(_sdist("print('changed')"))
    with pytest.raises(FetchError, match=r"toy==1\.0"):
        fetch(package, tmp_path / "cache")
    assert _left_behind(tmp_path / "cache") == []


def test_a_damaged_archive_in_the_cache_is_fetched_again(index, tmp_path):
    package = index(_sdist())
    path = fetch(package, tmp_path / "cache")
    path.write_bytes(path.read_bytes()[:-1])
    fetch(package, tmp_path / "cache")
    assert module.file_sha256(path) == package.sha256


def test_a_missing_package_is_one_line(index, tmp_path):
    package = index(_sdist())
    with pytest.raises(FetchError, match=r"no_such_toy==2\.0: cannot be fetched") as caught:
        fetch(Package("no_such_toy", "2.0", "no_such_toy-2.0.tar.gz", package.sha256, "MIT"), tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_an_interrupted_download_leaves_nothing(index, tmp_path, monkeypatch):
    package = index(_sdist())

    def interrupted(package, scratch):
        (scratch / package.file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(package, tmp_path / "cache")
    assert _left_behind(tmp_path / "cache") == []


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("UMIT_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path


def test_a_name_that_climbs_out_of_the_archive_reaches_no_file(tmp_path):
    archive = tmp_path / "climbing.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("../../outside.txt", "x")
    assert read_members(archive, lambda _: True) == {"../../outside.txt": b"x"}
    assert [path.name for path in tmp_path.rglob("*")] == ["climbing.zip"]


def test_a_truncated_archive_is_an_error(tmp_path):
    archive = tmp_path / "toy.tar.gz"
    archive.write_bytes(_sdist("#" * 5000)[:120])
    with pytest.raises(FetchError, match="cannot be read"):
        read_members(archive, lambda _: True)
