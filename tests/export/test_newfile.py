"""Files written in parts: the bytes are those given, whichever way they take to the disk."""

import errno
import itertools
import os
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from umit_jax import newfile
from umit_jax.newfile import NewFile


def without_direct(monkeypatch):
    monkeypatch.delattr(os, "O_DIRECT")


def short_writes(monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(newfile.os, "pwrite", lambda file, data, offset: write(file, data[: 4096 * 3], offset))


@pytest.mark.parametrize("change", [None, without_direct, short_writes])
def test_parts_in_any_order_and_from_threads_make_the_file(tmp_path, monkeypatch, change):
    if change is not None:
        change(monkeypatch)
    content = np.random.default_rng(0).integers(0, 256, 5_000_003, dtype=np.uint8)
    cuts = sorted({0, 1, 7, 4096, 8192, 8193, 50_000, 2**20, 2**20 + 5, 3_145_728, 4_999_999, len(content)})
    parts = list(itertools.pairwise(cuts))
    random.Random(0).shuffle(parts)
    with NewFile(tmp_path / "file") as file, ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda part: file.write(part[0], content[slice(*part)]), parts))
    assert (tmp_path / "file").read_bytes() == content.tobytes()


def test_a_file_system_that_refuses_the_blocks_gets_them_through_the_cache(tmp_path, monkeypatch):
    write, refused = os.pwrite, []

    def pwrite(file, data, offset):
        if len(data) > newfile._CACHED:
            refused.append(offset)
            raise OSError(errno.EINVAL, "Invalid argument")
        return write(file, data, offset)

    monkeypatch.setattr(newfile.os, "pwrite", pwrite)
    content = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint16)
    with NewFile(tmp_path / "file") as file:
        if file._direct is None:
            pytest.skip("no way past the page cache here")
        file.write(0, content)
    assert refused
    assert (tmp_path / "file").read_bytes() == content.tobytes()


def test_a_full_disk_is_an_error_in_either_way(tmp_path, monkeypatch):
    def pwrite(file, data, offset):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(newfile.os, "pwrite", pwrite)
    for size in (100, 2**20):
        with (
            NewFile(tmp_path / str(size)) as file,
            pytest.raises(OSError, match=f"No space left on device: '.*{size}'"),
        ):
            file.write(0, np.zeros(size, np.uint8))


def test_a_file_that_is_there_is_not_written_over(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(FileExistsError):
        NewFile(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"
