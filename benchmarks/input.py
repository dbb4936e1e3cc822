"""The host's side of training, measured: row plan at scale, fill on the paper's mixture, throughput, growth.

    python benchmarks/input.py                           all of these, one after the other
    python benchmarks/input.py plan                      planning time and memory for three million samples, and fill
    python benchmarks/input.py throughput [--mode L]     images per CPU-second against a torch DataLoader
    python benchmarks/input.py growth [--images 200]     the same with workers and with ten times the images; memory

`plan` needs nothing but the sizes of UMIT's data (arXiv 2503.15892; counts of the data sets' own publications), from
which token and patch counts are drawn. The others make JPEG files, prepare them, and run the Grain stream and a torch
DataLoader with transformers' Qwen2-VL processor over the same files in turn (loaders.py says how); the ratio of their
CPU-seconds is the figure, because wall clocks of shared machines are noisy.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

ROW_TOKENS, ROW_PATCHES = 4096, 14336  # of configs/umit.py

# (name, samples, vision tokens: fixed or (low, high), text tokens (mean, standard deviation)).
STAGE1 = (
    ("pmc_oa and synthetic pairs (en)", 2_500_000, (64, 768), (90, 60)),
    ("chimed_vl alignment (zh)", 500_000, (64, 768), (80, 40)),
)
STAGE2 = (
    ("vqa_rad", 1_793, (200, 768), (30, 8)),
    ("path_vqa", 19_654, (150, 768), (30, 8)),
    ("slake", 9_834, 729, (30, 8)),
    ("chimed_vl instruction", 469_441, (64, 768), (120, 60)),
    ("m3d_vqa", 488_000, 768, (60, 15)),
    ("medmnist 2D at 28 px", 496_000, 4, (60, 20)),
    ("medmnist 3D at 28 voxels", 6_900, 14, (50, 10)),
    ("iu_xray, two views", 2_069, 1458, (90, 30)),
    ("peir_gross", 6_698, (150, 768), (40, 15)),
    ("m3d_cap", 115_000, 768, (150, 80)),
    ("rsna", 21_000, 729, (60, 15)),
    ("m3d_seg boxes", 130_000, 768, (60, 10)),
    ("isbi2015, 19 landmarks", 2_850, 609, (45, 5)),
)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def sizes_of(mixture, rng):
    from data_pipelines.lengths import Sizes

    found = []
    for _, count, vision, (mean, deviation) in mixture:
        low, high = vision if isinstance(vision, tuple) else (vision, vision)
        merged = rng.integers(low, high + 1, count)
        text = np.clip(rng.normal(mean, deviation, count), 20, 1500).astype(np.int64)
        tokens = np.minimum(text + merged, ROW_TOKENS)
        found.append(Sizes(np.arange(count), tokens, 4 * merged, np.zeros(count, np.int8)))
    return found


def plan(args: argparse.Namespace) -> dict:
    """Every row of one epoch of each stage: seconds, memory above what the sizes take, and how full the rows are."""
    from data_pipelines.plan import RowPlan

    rng, out = np.random.default_rng(0), {}
    for name, mixture in (("stage 1", STAGE1), ("stage 2", STAGE2)):
        sizes = sizes_of(mixture, rng)
        before, started = peak_mb(), time.process_time()
        made = RowPlan(sizes, [1.0] * len(sizes), row_tokens=ROW_TOKENS, row_patches=args.row_patches)
        rows = made.rows_in_epoch(0)
        seconds = time.process_time() - started
        fill = made.fill(0)
        started = time.perf_counter()
        for row in range(0, rows, max(rows // 50, 1)):
            made.row(row)
        out[name] = {
            "samples": made.samples_in_epoch(0),
            "rows": rows,
            "cpu_seconds": round(seconds, 1),
            "microseconds_per_sample": round(seconds / made.samples_in_epoch(0) * 1e6, 1),
            "peak_mb_above_sizes": round(peak_mb() - before, 1),
            "fill_tokens": round(fill[0], 4),
            "fill_patches": round(fill[1], 4),
            "milliseconds_for_a_far_row": round((time.perf_counter() - started) / 50 * 1e3, 1),
        }
    return out


def make_files(folder: Path, count: int, mode: str) -> None:
    """JPEG files of 200 to 900 pixels a side, with texture, so that decoding costs what it costs for photographs."""
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(count):
        height, width = rng.integers(200, 901, 2)
        coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.BICUBIC))
        noisy = picture.astype(np.int16) + rng.integers(-12, 13, picture.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode).save(folder / f"{i:06d}.jpg", quality=90)


def shards_of(folder: Path, out: Path) -> None:
    from PIL import Image

    from benchmarks.loaders import QUESTION, answer
    from data_pipelines.record import MEDIA_TOKEN, Media, Record, Turn
    from data_pipelines.shards import ShardWriter
    from umit_jax.targets import text_target

    with ShardWriter(out, "files") as writer:
        for i, path in enumerate(sorted(folder.iterdir())):
            with Image.open(path) as image:
                size = image.size
            media = (Media((path.read_bytes(),), "image", "XC", size),)
            turns = (Turn("user", MEDIA_TOKEN + QUESTION), Turn("assistant", answer(i)))
            writer.add(
                Record(f"files/{i}", "files", "train", f"p{i}", "caption", "en", "caption", media, turns,
                       text_target(turns[1].text), "synthetic", "CC0-1.0", "benchmark", synthetic=True)
            )  # fmt: skip


class Sides:
    """Both loaders over `images` pictures in a folder, each run in a process of its own (loaders.py)."""

    def __init__(self, root: Path, images: int, mode: str):
        from tests.data.qwen_vocabulary import write_tokenizer_json

        self.root = root
        write_tokenizer_json(root)
        (root / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Qwen2Tokenizer"}))
        make_files(root / "files", images, mode)
        shards_of(root / "files", root / "shards")

    def run(self, side: str, workers: int, images: int) -> dict[str, float]:
        path = self.root / ("shards" if side == "ours" else "files")
        command = [sys.executable, str(Path(__file__).with_name("loaders.py")), side, str(path), str(workers)]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
        if side == "torchvision":
            environment["PYTHONPATH"] = str(self._torchvision())
        command += [str(images), "--tokenizer", str(self.root)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        return json.loads(done.stdout.splitlines()[-1])

    def _torchvision(self) -> Path:
        from tests.torchvision_wheel import unpack

        folder = self.root / "torchvision"
        return folder if folder.exists() else unpack(folder)


def throughput(args: argparse.Namespace) -> dict:
    """Images per CPU-second of all three, in turn and without workers."""
    sides = ("ours", "pillow", "torchvision")
    with tempfile.TemporaryDirectory() as folder:
        made = Sides(Path(folder), args.images, args.mode)
        rounds = [{side: made.run(side, 0, args.images) for side in sides} for _ in range(args.rounds)]
    rates = {side: [r[side]["images"] / r[side]["cpu_seconds"] for r in rounds] for side in sides}
    ratios = {other: [a / b for a, b in zip(rates["ours"], rates[other], strict=True)] for other in sides[1:]}
    return {
        "images_per_cpu_second": {side: round(statistics.median(values), 1) for side, values in rates.items()},
        "ours_over": {other: round(statistics.median(values), 2) for other, values in ratios.items()},
        "of_each_round": {other: [round(value, 2) for value in values] for other, values in ratios.items()},
    }


def growth(args: argparse.Namespace) -> dict:
    """Rates and memory with 0, 1 and 2 workers and with ten times the images."""
    out: dict[str, dict] = {}

    def note(name: str, found: dict[str, float]) -> None:
        rates = {f"images_per_{key}": round(found["images"] / found[f"{key}s"], 1) for key in ("cpu_second", "second")}
        out[name] = {**rates, "peak_mb": round(found["peak_mb"])}
        print(name, out[name], file=sys.stderr)  # the rest takes a while

    for images in (args.images, 10 * args.images):
        with tempfile.TemporaryDirectory() as folder:
            made = Sides(Path(folder), images, args.mode)
            for side in ("ours", "pillow"):
                note(f"{side}, {images} images", made.run(side, 0, images))
                for workers in (1, 2) if images > args.images else ():
                    note(f"{side}, {images} images, {workers} workers", made.run(side, workers, images))
    return out


def everything(args: argparse.Namespace) -> dict:
    """Each in a process of its own, because peaks of memory are those of a process."""
    out = {}
    for name in ("plan", "throughput", "growth"):
        done = subprocess.run([sys.executable, __file__, name], check=True, stdout=subprocess.PIPE, text=True)
        out[name] = json.loads(done.stdout)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(run=everything)
    commands = parser.add_subparsers(dest="command")
    planned = commands.add_parser("plan")
    planned.add_argument("--row-patches", type=int, default=ROW_PATCHES)
    planned.set_defaults(run=plan)
    for name, run, images in (("throughput", throughput, 400), ("growth", growth, 200)):
        measured = commands.add_parser(name)
        measured.add_argument("--images", type=int, default=images)
        measured.add_argument("--mode", choices=("RGB", "L"), default="RGB", help="colour or grey pictures")
        measured.set_defaults(run=run)
    commands.choices["throughput"].add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(json.dumps(args.run(args), indent=1))


if __name__ == "__main__":
    main()
