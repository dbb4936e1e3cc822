"""The host's side of training, measured: row plan at scale, fill on the paper's mixture, throughput, growth.

    python benchmarks/input.py plan                       planning time and memory for three million samples, and fill
    python benchmarks/input.py throughput [--images 400]  images per CPU-second against a torch DataLoader

`plan` needs nothing but the sizes of UMIT's data (arXiv 2503.15892; counts of the data sets' own publications), from
which token and patch counts are drawn. `throughput` makes JPEG files, prepares them, and runs the Grain stream and a
torch DataLoader with transformers' Qwen2-VL processor over the same files in turn; the ratio of their CPU-seconds is
the figure, because wall clocks of shared machines are noisy.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

ROW_TOKENS, ROW_PATCHES = 4096, 8192  # of configs/common.py
PIXELS = 4 * 28 * 28, 602112  # the least and most of an image

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


def make_files(folder: Path, count: int) -> None:
    """JPEG files of 200 to 900 pixels a side, with texture, so that decoding costs what it costs for photographs."""
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(count):
        height, width = rng.integers(200, 901, 2)
        coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.BICUBIC))
        noisy = picture.astype(np.int16) + rng.integers(-12, 13, picture.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i:06d}.jpg", quality=90)


def shards_of(folder: Path, out: Path) -> None:
    from PIL import Image

    from data_pipelines.record import MEDIA_TOKEN, Media, Record, Turn
    from data_pipelines.shards import ShardWriter
    from umit_jax.targets import text_target

    with ShardWriter(out, "files") as writer:
        for i, path in enumerate(sorted(folder.iterdir())):
            with Image.open(path) as image:
                size = image.size
            media = (Media((path.read_bytes(),), "image", "XC", size),)
            turns = (Turn("user", MEDIA_TOKEN + "Describe this image."), Turn("assistant", f"Picture {i}."))
            writer.add(
                Record(f"files/{i}", "files", "train", f"p{i}", "caption", "en", "caption", media, turns,
                       text_target(turns[1].text), "synthetic", "CC0-1.0", "benchmark", synthetic=True)
            )  # fmt: skip


def ours(shards: Path, workers: int, images: int) -> None:
    """One pass over the packed batches of the Grain stream."""
    import types

    from configs import common
    from data_pipelines.image import Processing
    from data_pipelines.mixture import make_stream
    from data_pipelines.tokenizer import train_sentencepiece

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_sentencepiece(["Describe this image.", "Picture 1."] * 20, Path(folder), 330)
        data = types.SimpleNamespace(
            split="train", tasks=(), row_tokens=ROW_TOKENS, row_patches=14336, rows=1, oversize="error",
            loss_weight="token", temperature=1.0, window=16384, workers=workers, prefetch=1,
            augment=common.augment(),
        )  # fmt: skip
        started, wall, first = 0.0, 0.0, 0
        stream = make_stream(data, {shards: 1.0}, tokenizer, Processing(*PIXELS), cache_bytes=0)
        batches, seen = stream.batches(0), 0
        for _, info in batches:  # timed from the first batch on: before it, libraries are imported
            seen += sum(map(len, info.sample_ids))
            if seen >= images:
                break
            started, wall, first = (started, wall, first) if first else (cpu_seconds(), time.perf_counter(), seen)
        report(started, wall, seen - first)
        batches.close()


def theirs(folder: Path, workers: int, images: int) -> None:
    """One pass of a torch DataLoader whose items are what transformers' Qwen2-VL image processor makes of the files.

    The processor's Pillow version: the other one needs torchvision. Text is left out, which favours it."""
    import torch
    from transformers import Qwen2VLImageProcessorPil
    from transformers.image_utils import load_image

    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": PIXELS[0], "longest_edge": PIXELS[1]})
    files = sorted(folder.iterdir())[:images]

    class Files(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, i: int):
            return processor(images=[load_image(str(files[i]))], return_tensors="pt")

    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(Files(), batch_size=8, num_workers=workers, collate_fn=list)
    batches = iter(loader)
    next(batches)  # as above
    started, wall = cpu_seconds(), time.perf_counter()
    report(started, wall, sum(map(len, batches)))


def cpu_seconds() -> float:
    """Of this process and its ended children."""
    usage = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in usage)


def report(started: float, wall: float, images: int) -> None:
    """images: those whose decoding falls into the time since `started` and `wall`."""
    figures = {"images": images, "cpu_seconds": cpu_seconds() - started, "seconds": time.perf_counter() - wall}
    print(json.dumps({**figures, "peak_mb": peak_mb()}))


def throughput(args: argparse.Namespace) -> dict:
    """Images per CPU-second of both, in turn; then ours with more workers and with ten times the images."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_files(root / "files", args.images)
        make_files(root / "many", 10 * args.images)
        for name in ("files", "many"):
            shards_of(root / name, root / f"{name}-shards")

        def run(side: str, path: str, workers: int, images: int) -> dict:
            command = [sys.executable, __file__, side, str(root / path), str(workers), str(images)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            return json.loads(done.stdout.splitlines()[-1])

        rounds = [
            (run("ours", "files-shards", 0, args.images), run("theirs", "files", 0, args.images))
            for _ in range(args.rounds)
        ]
        per_second = [[side["images"] / side["cpu_seconds"] for side in pair] for pair in zip(*rounds, strict=True)]
        mine, other = (statistics.median(side) for side in per_second)
        one = run("ours", "files-shards", 1, args.images)
        two = run("ours", "files-shards", 2, args.images)
        many = run("ours", "many-shards", 0, 10 * args.images)
        first = rounds[0][0]
        return {
            "images_per_cpu_second": {"ours": round(mine, 1), "torch DataLoader": round(other, 1)},
            "ratio": round(mine / other, 2),
            "wall_of_2_workers_over_1": round(two["seconds"] / one["seconds"], 2),
            "ten_times_the_data": {
                "images_per_cpu_second": round(many["images"] / many["cpu_seconds"], 1),
                "peak_mb": [round(first["peak_mb"]), round(many["peak_mb"])],
            },
        }


def main() -> None:
    if len(sys.argv) == 5 and sys.argv[1] in ("ours", "theirs"):
        {"ours": ours, "theirs": theirs}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    planned = commands.add_parser("plan")
    planned.add_argument("--row-patches", type=int, default=ROW_PATCHES)
    planned.set_defaults(run=plan)
    measured = commands.add_parser("throughput")
    measured.add_argument("--images", type=int, default=200)
    measured.add_argument("--rounds", type=int, default=3)
    measured.set_defaults(run=throughput)
    args = parser.parse_args()
    print(json.dumps(args.run(args), indent=1))


if __name__ == "__main__":
    main()
