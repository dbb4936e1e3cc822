"""One pass over the same pictures and questions, by our stream or by a torch DataLoader; run by benchmarks/input.py.

    python benchmarks/loaders.py ours SHARDS WORKERS IMAGES            packed batches of the Grain stream
    python benchmarks/loaders.py pillow|torchvision FILES WORKERS IMAGES

A torch user's loader: paths in the data set, and a collate_fn that opens the files of a batch with load_image and gives
them with their conversations to Qwen2VLProcessor, padded. `torchvision` is the image processor that transformers takes
where torchvision is installed, `pillow` the one it falls back to. Both sides have one tokenizer. The last
line is JSON; CPU-seconds are those of this process and its workers. Without workers the whole pass is timed, after a
batch that brings in the libraries; with workers what follows the first batch, so that starting them does not count.
"""

import argparse
import contextlib
import itertools
import json
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PIXELS = 4 * 28 * 28, 602112  # the least and most of an image
QUESTION = "Describe this image."
BATCH = 8  # of the torch loader; ours makes rows of 4096 tokens
TEXT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>"
    f"<|vision_end|>{QUESTION}<|im_end|>\n<|im_start|>assistant\n{{}}<|im_end|>\n"
)


def answer(i: int) -> str:
    return f"Picture {i}."


def ours(shards: Path, workers: int, tokenizer_dir: Path) -> Iterator[int]:
    """The images in each batch, for ever."""
    from configs import common
    from data_pipelines.image import Processing
    from data_pipelines.mixture import make_stream
    from data_pipelines.tokenizer import load_tokenizer

    data = types.SimpleNamespace(
        split="train", tasks=(), row_tokens=4096, row_patches=14336, rows=1, oversize="error", loss_weight="token",
        temperature=1.0, window=16384, workers=workers, prefetch=1, augment=common.augment(),
    )  # fmt: skip
    stream = make_stream(data, {shards: 1.0}, load_tokenizer(tokenizer_dir), Processing(*PIXELS), cache_bytes=0)

    def counts() -> Iterator[int]:
        with contextlib.closing(stream.batches(0)) as batches:
            yield from (sum(map(len, info.sample_ids)) for _, info in batches)

    return counts()


def theirs(folder: Path, workers: int, tokenizer_dir: Path, backend: str) -> Iterator[int]:
    import torch

    if backend == "torchvision":
        from tests.torchvision_wheel import declare_operators

        declare_operators()
        from transformers import Qwen2VLImageProcessor as ImageProcessor
    else:
        from transformers import Qwen2VLImageProcessorPil as ImageProcessor
    from transformers.image_utils import load_image

    from tests.parity.processor_oracle import auto_tokenizer, oracle

    torch.set_num_threads(1)
    size = {"shortest_edge": PIXELS[0], "longest_edge": PIXELS[1]}
    processor = oracle("qwen2_vl", auto_tokenizer(tokenizer_dir), {}).processor
    processor.image_processor = ImageProcessor(size=size)

    def collate(items: list[tuple[int, str]]) -> Any:
        images = [load_image(path) for _, path in items]
        texts = [TEXT.format(answer(i)) for i, _ in items]
        return processor(text=texts, images=images, padding=True, return_tensors="pt")

    files = list(enumerate(map(str, sorted(folder.iterdir()))))
    loader: Any = torch.utils.data.DataLoader(files, batch_size=BATCH, num_workers=workers, collate_fn=collate)  # type: ignore[arg-type]
    return (len(batch["image_grid_thw"]) for _ in itertools.count() for batch in loader)


def cpu_seconds() -> float:
    """Of this process and all its children, ended or not."""
    this = psutil.Process()
    times = [this.cpu_times(), *(child.cpu_times() for child in this.children(recursive=True))]
    return sum(t.user + t.system for t in times) + times[0].children_user + times[0].children_system


def measure(start: Callable[[int], Iterator[int]], workers: int, images: int) -> dict[str, float]:
    warm = start(0)
    next(warm)
    warm.close()  # type: ignore[attr-defined]
    batches = start(workers)
    _settle()
    if workers:
        next(batches)
    began, wall, seen = cpu_seconds(), time.perf_counter(), 0
    while seen < images:
        seen += next(batches)
    taken = {"images": seen, "cpu_seconds": cpu_seconds() - began, "seconds": time.perf_counter() - wall}
    peak_mb = sum(_peak_mb(process) for process in [psutil.Process(), *psutil.Process().children(recursive=True)])
    batches.close()  # type: ignore[attr-defined]
    return taken | {"peak_mb": peak_mb}


def _settle() -> None:
    """Returns when nothing is under way: a loader that reads ahead ends its row after it is closed."""
    before = -1.0
    while cpu_seconds() > before:
        before = cpu_seconds()
        time.sleep(0.5)


def _peak_mb(process: psutil.Process) -> float:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=("ours", "pillow", "torchvision"))
    parser.add_argument("path", type=Path)
    parser.add_argument("workers", type=int)
    parser.add_argument("images", type=int)
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory with tokenizer.json")
    args = parser.parse_args()

    def start(workers: int) -> Iterator[int]:
        if args.side == "ours":
            return ours(args.path, workers, args.tokenizer)
        return theirs(args.path, workers, args.tokenizer, args.side)

    print(json.dumps(measure(start, args.workers, args.images)))


if __name__ == "__main__":
    main()
