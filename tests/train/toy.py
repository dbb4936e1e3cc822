"""A model of a few thousand parameters and a stream whose batches are a function of the step, for training tests.

Also a program: `python -m tests.train.toy JSON` runs `train` in a process of its own, to be killed.
"""

import dataclasses
import itertools
import json
import os
import pathlib
import signal
import sys
import time
import traceback
from collections.abc import Generator, Sequence
from typing import Any

import ml_collections

from configs import common
from umit_jax.batch import Batch, fake_batch
from umit_jax.model.config import ModelConfig

IMAGE = 60
MODEL = ModelConfig.from_dict(
    {
        "vision": {"layers": 2, "width": 16, "heads": 2, "mlp_ratio": 2, "patch_size": 4},
        "text": {
            "vocab_size": 64,
            "layers": 2,
            "width": 32,
            "heads": 4,
            "kv_heads": 2,
            "mlp_size": 48,
            "mrope_section": (1, 1, 2),
        },
        "tied_head": True,
        "image_token_id": IMAGE,
        "video_token_id": 61,
        "bos_token_id": 62,
        "eos_token_id": 63,
    }
)
FROZEN_TOWER = (("vision/.*", None), (".*", 1.0))
SIGTERM_SECONDS = 5  # jax's preemption service looks for the signal once a second, then all processes have to agree


@dataclasses.dataclass
class Info:
    sample_ids: list[list[str]]
    augmented: dict[str, dict[str, int]] | None = None


class ToyStream:
    """`rows` rows a step; this process has the index-th of `count` parts of them. Counting batches from 1: at those of
    `nan_at` a loss weight is infinite, at `hang_at` the batch does not come (to part `hang_part`), in those of
    `text_only` the first half of the rows has no image, at `term_at` the process that has part `term_part` sends itself
    a SIGTERM, after `end_at` there are no more."""

    def __init__(
        self,
        rows: int = 8,
        *,
        index: int = 0,
        count: int = 1,
        nan_at: int | Sequence[int] = (),
        hang_at: int = 0,
        hang_part: int | None = None,
        text_only: Sequence[int] = (),
        term_at: int = 0,
        term_part: int = 0,
        end_at: int = 0,
    ):
        self.rows, self.mine = rows, slice(index * rows // count, (index + 1) * rows // count)
        self.nan_at = (nan_at,) if isinstance(nan_at, int) else nan_at
        self.hang_at, self.end_at = hang_at if hang_part in (None, index) else 0, end_at
        self.text_only, self.several = text_only, count > 1
        self.term_at = term_at if index == term_part else 0

    def counts(self, step: int) -> dict[str, Any]:
        return {"toy": {"vqa": {"samples": self.rows}}}

    def batches(self, start_step: int) -> Generator[tuple[Batch, Info], None, None]:
        for step in itertools.count(start_step + 1):
            if step == self.hang_at:
                time.sleep(600)
            if step == self.term_at:
                os.kill(os.getpid(), signal.SIGTERM)
                if self.several:
                    time.sleep(SIGTERM_SECONDS)  # steps of a toy take milliseconds: all would be done before that
            batch = toy_batch(step, self.rows)
            if step in self.text_only:
                without_images(batch, self.rows // 2)
            if step in self.nan_at:
                batch.weights_BS[0, 0] = float("inf")
            ids = [[f"step{step}/row{row}/{i}" for i in range(2)] for row in range(self.rows)]
            samples = sum(map(len, ids[self.mine]))
            counts = {"flip": {"done": samples - 1, "not drawn": 1}}
            yield Batch(*(field[self.mine] for field in batch)), Info(ids[self.mine], counts)
            if step == self.end_at:
                return


def toy_batch(seed: int, rows: int = 8) -> Batch:
    values = MODEL.vision.patch_values
    batch = fake_batch(rows, 32, 16, values, vocab_size=64, image_token=IMAGE, seed=seed)
    for row in range(rows):  # rows of unequal weight, so that a mean of means would show
        batch.weights_BS[row, : row % 5] = 0
    return batch


def without_images(batch: Batch, rows: int) -> None:
    """Makes text of the images in the first rows."""
    batch.tokens_BS[:rows][batch.vision_index_BS[:rows] >= 0] = 1
    batch.vision_index_BS[:rows] = -1
    batch.patch_segments_BP[:rows] = 0
    batch.patches_BPC[:rows] = 0


def toy_config(**changes: Any) -> ml_collections.ConfigDict:
    """Six steps on eight rows; `changes` as dotted keys with "__" for the dot (optimizer__patterns=...)."""
    config = common.train()
    config.update(steps=6, checkpoint_every=3, model="toy", compute_dtype="float32", loss_chunk=8, remat="none")
    config.data.rows = 8
    config.optimizer.update(learning_rate=1e-2, warmup_steps=2, weight_decay=0.1, patterns=())
    for key, value in changes.items():
        config.update_from_flattened_dict({key.replace("__", "."): value})
    return config


def lines(workdir: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def without_time(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run but for how long they took: the same for every run of the same steps."""
    return [{k: v for k, v in line.items() if k not in ("seconds", "time")} for line in lines(workdir)]


def main(arguments: dict[str, Any]) -> None:
    """arguments: workdir, devices, mesh, config {key: value}, stream {}; base (of a LoRA run) or None;
    processes [address, count, index] for one of several. Prints the summary as JSON; exits with status 75 when
    preempted."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    # Level 0 halves the time to compile; what is compared has been compiled the same way.
    devices = f"--xla_force_host_platform_device_count={arguments['devices']}"
    os.environ["XLA_FLAGS"] = f"{devices} --xla_backend_optimization_level=0"
    import jax

    if "processes" in arguments:
        address, count, index = arguments["processes"]
        jax.distributed.initialize(address, count, index)
    from launch.processes import leave
    from umit_jax.parallel.mesh import data_process, make_mesh
    from umit_jax.train.base import Base
    from umit_jax.train.loop import train
    from umit_jax.train.preemption import Preempted

    config = toy_config(**arguments.get("config", {}))
    mesh = make_mesh(arguments["mesh"])
    index, count = data_process(mesh)
    stream = ToyStream(**arguments.get("stream", {}), index=index, count=count)
    base = Base(pathlib.Path(arguments["base"])) if arguments.get("base") else None
    try:
        print(json.dumps(train(config, MODEL, stream, pathlib.Path(arguments["workdir"]), mesh, base=base)), flush=True)
    except Preempted as error:
        print(error, flush=True)
        sys.exit(75)
    except Exception:
        traceback.print_exc()
        leave(1)  # as `umit` does: another process may be gone
        sys.exit(1)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
