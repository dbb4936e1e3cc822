"""`umit prepare` at scale: one process, Apache Beam on all cores and a kill in the middle, on the same files.

The set is synthetic and laid out as PMC-OA: a folder of small JPEG files and a jsonl of captions, four images an
article. Every run is a command of its own; the processes below it are looked at ten times a second, which gives
CPU-seconds and the peak of the memory they hold together (shared pages divided by those who share them). The shards are
compared file by file. The killed run loses all its processes at once when half of its chunks are there, and is then
started again.

    python benchmarks/prepare.py --images 100000 --dir SCRATCH
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).parent.parent
FOLDER = "caption_T060_filtered_top4_sep_v0_subfigures"
ENGINES = {
    "one process": ["--workers", "1"],
    "Apache Beam": ["--runner", "direct"],
}
_MODALITIES = ("CT", "MRI", "Ultrasound", "Radiograph")
_ORGANS = ("liver", "lung", "kidney", "brain", "heart")


def write_set(folder: Path, images: int) -> None:
    """The synthetic set, in a minute or two for 100,000 images: 96 to 160 pixels a side, smooth with some noise."""
    (folder / FOLDER).mkdir(parents=True)
    noise = np.random.default_rng(0).integers(-8, 9, (1 << 18), np.int16)
    with (folder / "pmc_oa_beta.jsonl").open("w", encoding="utf-8") as rows:
        for number in range(images):
            rng = np.random.default_rng([1, number])
            article, part = divmod(number, 4)
            name = f"PMC{1000000 + article}_Fig{part // 2 + 1}_{part % 2 + 1}.jpg"
            width, height = (int(n) for n in rng.integers(96, 161, 2))
            small = Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
            pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
            start = int(rng.integers(0, len(noise) - width * height))
            pixels = np.clip(pixels + noise[start : start + width * height].reshape(height, width), 0, 255)
            buffer = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", quality=85)
            (folder / FOLDER / name).write_bytes(buffer.getvalue())
            said = f"{_MODALITIES[article % 4]} of the {_ORGANS[article % 5]}, patient {article}, view {part // 2 + 1}."
            rows.write(json.dumps({"image": name, "caption": said}) + "\n")
    (folder / "whole").touch()


class Tree:
    """A command and all processes below it, looked at while they run."""

    def __init__(self, command: list[str], log: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.started, self.cpu, self.peak = time.monotonic(), {}, 0

    def watch(self, until: Callable[[], bool] = lambda: False) -> None:
        """Until the command ends, or `until` says so."""
        top = psutil.Process(self.process.pid)
        while self.process.poll() is None and not until():
            held = 0
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in [top, *top.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                        spent = process.cpu_times()
                        self.cpu[process.pid] = spent.user + spent.system
                        held += process.memory_full_info().pss
            self.peak = max(self.peak, held)
            time.sleep(0.1)
        self.seconds = time.monotonic() - self.started

    def kill(self) -> None:
        """Every process of the tree at once, as when the machine's memory runs out or its power does."""
        for process in [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self.process.wait()

    def figures(self, images: int) -> str:
        cpu = sum(self.cpu.values())
        return (
            f"{self.seconds:.1f} s, {cpu:.1f} CPU-seconds, peak {self.peak / 2**20:.0f} MB, "
            f"{images / cpu:.0f} images a CPU-second"
        )


def command(source: Path, out: Path, engine: str) -> list[str]:
    flags = ["prepare", "pmc_oa", "--source", str(source), "--out", str(out), *ENGINES[engine]]
    return [sys.executable, "-m", "launch", *flags]


def contents(out: Path) -> dict[str, str]:
    """Digest of every file of a shard set; summary.json tells the time and is not one of them."""
    files = sorted(path for path in out.iterdir() if path.name != "summary.json")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def finished(out: Path) -> list[Path]:
    """Folders of the chunks that are whole."""
    return [path.parent for path in out.with_name(out.name + ".partial").glob("[0-9]*/facts.json")]


def shard_files(*folders: Path) -> set[int]:
    """Which files on the disk the shards in these folders are, whatever their names."""
    return {path.stat().st_ino for folder in folders for path in folder.glob("*.array_record*")}


def checked(tree: Tree, log: Path) -> None:
    if tree.process.wait() != 0:
        raise SystemExit(f"{log}: {log.read_text()[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--dir", type=Path, required=True, help="folder for the synthetic set (kept) and the shards")
    parser.add_argument("--engine", action="append", choices=list(ENGINES), help="only this one; repeatable")
    args = parser.parse_args()

    source = args.dir / f"source_{args.images}"
    if not (source / "whole").exists():
        start = time.monotonic()
        write_set(source, args.images)
        print(f"{args.images} images written in {time.monotonic() - start:.0f} s", flush=True)
    wanted: dict[str, str] = {}
    for engine in args.engine or ENGINES:
        name = engine.replace(" ", "_")
        out, log = args.dir / f"{name}_{args.images}", args.dir / f"{name}.log"
        tree = Tree(command(source, out, engine), log)
        tree.watch()
        checked(tree, log)
        wanted = wanted or contents(out)
        same = "the same shards" if contents(out) == wanted else "OTHER SHARDS"
        print(f"{engine}: {tree.figures(args.images)}; {len(wanted)} files, {same}", flush=True)

    engine = list(args.engine or ENGINES)[-1]
    out, log = args.dir / f"killed_{args.images}", args.dir / "killed.log"
    chunks = len({name for name in wanted if "train" in name})  # every chunk has articles of the training split
    tree = Tree(command(source, out, engine), log)
    tree.watch(lambda: len(finished(out)) >= chunks // 2)
    tree.kill()
    kept = shard_files(*finished(out))
    print(f"{engine}, killed after {tree.seconds:.1f} s with {len(finished(out))} of {chunks} chunks", flush=True)
    tree = Tree(command(source, out, engine), log)
    tree.watch()
    checked(tree, log)
    same = "the same shards" if contents(out) == wanted else "OTHER SHARDS"
    reused = f"{len(kept & shard_files(out))} of {len(kept)} shards kept"
    print(f"{engine}, started again: {tree.seconds:.1f} s, {sum(tree.cpu.values()):.1f} CPU-seconds, {reused}, {same}")


if __name__ == "__main__":
    main()
