"""A workdir in a bucket: the toy run that stops there and goes on is the run on this machine."""

import jax
import pytest

from data_pipelines.paths import as_path
from tests.launch.gcs import BUCKET, emulator
from tests.train.toy import MODEL, ToyStream, toy_config, without_time
from umit_jax.parallel.mesh import make_mesh
from umit_jax.train.checkpoint import read_data
from umit_jax.train.loop import train
from umit_jax.train.preemption import Preempted


def run(workdir, **settings):
    mesh = make_mesh({}, jax.devices()[:1])
    return train(toy_config(log_samples=True, keep=2), MODEL, ToyStream(**settings), workdir, mesh)


@pytest.mark.slow
def test_a_run_in_a_bucket_stops_and_goes_on_as_one_on_this_machine(tmp_path, monkeypatch):
    with emulator() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        workdir = as_path(f"gs://{BUCKET}/run")
        with pytest.raises(Preempted):
            run(workdir, term_at=4)
        assert (workdir / "checkpoints" / "4" / "commit_success.txt").exists()
        summary = run(workdir, nan_at=5)
        assert (summary["resumed_from"], summary["skipped_batches"]) == (4, [4])
        assert summary["checkpoint"] == f"{workdir}/checkpoints/6"
        assert read_data(workdir / "checkpoints" / "6")["skipped"] == [4]
        run(tmp_path, nan_at=5)
        assert without_time(workdir) == without_time(tmp_path)
        assert any("tfevents" in path.name for path in (workdir / "tensorboard").iterdir())
