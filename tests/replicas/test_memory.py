"""What preparation holds in memory does not grow with a data set: distinct images of 15 kB, and ten times as many.

benchmarks/converters.py measures every layout, as the system counts memory; here allocations of Python and numpy are
counted, which other jobs and the allocator do not change.
"""

import importlib
import tracemalloc
from pathlib import Path

import pytest

from benchmarks.converters import SETS, Pictures
from data_pipelines.preparation import prepare

FEW = 12
MOST = 3000  # bytes an input: its unit, its row of the manifest, digests; far less than an image of 15 kB


def peak(name: str, n: int, folder: Path) -> int:
    options = SETS[name][0](folder / "raw" / str(n), n, Pictures(folder / "pictures"))
    converter = importlib.import_module(f"data_pipelines.sources.{name.split('/')[0]}").converter(**options)
    tracemalloc.start()
    try:
        manifest = prepare(converter, folder / "out" / str(n))
        assert sum(count for tasks in manifest["records"].values() for count in tasks.values()) >= n
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["jsonl", "pmc_oa", "vqa_rad/hub", "dicom_folder"])
def test_ten_times_the_images_take_no_more_memory(name, tmp_path):
    peak(name, 2, tmp_path)  # so that what is imported and read once is there
    few, many = peak(name, FEW, tmp_path), peak(name, 10 * FEW, tmp_path)
    assert many - few < MOST * 9 * FEW
