"""Import and export of a 2B-shaped checkpoint: peak memory, and time as a ratio to `cp` of the same bytes.

    python benchmarks/convert.py --dir /somewhere/with/20/GB [--repeats 3] [--layers 28]

Writes a random bfloat16 checkpoint of Qwen2-VL-2B's shape (4.4 GB in shards of 1 GB) with the safetensors layout,
tensor by tensor. Each repeat then runs, one after the other, `cp -r` of it, `umit import` and `umit export`, each as a
process of its own on the same file system. All three read what lies in the page cache; `cp` leaves there what it wrote
and does not wait for the disk (what the one before wrote is on disk before the next starts), import and export write
past it (umit_jax/newfile.py). A virtual machine gives memory that it does not use back to its host, and to get it again
costs more than to copy into it: so before each of them its input is read, and as much free memory as it will fill is
written once. That lasts about two seconds, which is all that `cp` needs, and so favours it. Times include starting
Python and importing JAX. Peak memory and CPU-seconds are what the kernel says of the process. In the end the exported
tensors are compared with the original ones bit by bit, and everything written is removed.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from configs.sizes import SIZES
from tests.export import hub
from umit_jax.convert.keymap import tensors
from umit_jax.convert.tensorfile import Spec, read_header, write_file
from umit_jax.model.config import ModelConfig

ROOT = pathlib.Path(__file__).resolve().parent.parent
BF16 = np.dtype(ml_dtypes.bfloat16)


def generate(directory: pathlib.Path, layers: int, shard_bytes: int = 10**9) -> int:
    """Writes the checkpoint; returns the bytes of its weights. No more than one tensor is in memory."""
    ids = {key: hub.config_json()[key] for key in ("image_token_id", "video_token_id")}
    config = ModelConfig.from_dict(SIZES["2b"], {"text.layers": layers, **ids})
    directory.mkdir(parents=True)
    hub.write_json(directory / "config.json", config.to_hf() | {"torch_dtype": "bfloat16"})
    hub.write_companions(directory)
    shards: list[list[Spec]] = [[]]
    for tensor in tensors(config):
        spec = Spec(tensor.name, BF16, tensor.shape)
        if sum(s.nbytes for s in shards[-1]) + spec.nbytes > shard_bytes and shards[-1]:
            shards.append([])
        shards[-1].append(spec)
    rng, where = np.random.default_rng(0), {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_file(directory / name, shard, (random_values(rng, spec) for spec in shard))
        where |= dict.fromkeys((spec.name for spec in shard), name)
    total = sum(spec.nbytes for shard in shards for spec in shard)
    hub.write_json(directory / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})
    return total


def random_values(rng: np.random.Generator, spec: Spec) -> np.ndarray:
    """Random signs and mantissas, exponents of weights: as little to compress as in a trained model."""
    count = spec.nbytes // 2
    bits = np.frombuffer(rng.bytes(2 * count), np.uint16) & 0x81FF
    return (bits | 0x3C00).view(BF16).reshape(spec.shape)


def run(command: list[str]) -> tuple[float, float, float]:
    """(seconds, CPU seconds, peak resident memory in GB) of a process."""
    started = time.monotonic()
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: status {status}")
    return time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9


def warm(directory: pathlib.Path) -> None:
    """Reads a directory into the page cache, and makes the machine own as much free memory beside it."""
    total = 0
    for path in filter(pathlib.Path.is_file, directory.rglob("*")):
        with path.open("rb", buffering=0) as file:
            while read := len(file.read(1 << 24)):
                total += read
    np.ones(total, np.uint8)


def differences(first: pathlib.Path, second: pathlib.Path) -> list[str]:
    """Names of tensors that are not the same bits in both directories."""
    found = [{t.name: t for file in d.glob("*.safetensors") for t in read_header(file)} for d in (first, second)]
    different = sorted(found[0].keys() ^ found[1].keys())
    for name in sorted(found[0].keys() & found[1].keys()):
        a, b = (tensors_of[name] for tensors_of in found)
        same = (a.dtype, a.shape) == (b.dtype, b.shape)
        if not (same and np.array_equal(a.map().view(np.uint16), b.map().view(np.uint16))):
            different.append(name)
    return different


def apart(function: Callable[..., Any], *args: Any) -> Any:
    """Calls it in a process of its own: the kernel counts this one's peak into that of every process it starts."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=pathlib.Path, required=True, help="a new directory, removed in the end")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layers", type=int, default=28, help="of the decoder; fewer for a quick look")
    args = parser.parse_args()
    args.dir.mkdir(parents=True)  # refuses a directory that is there: it is removed below
    try:
        measure(args.dir.resolve(), args.repeats, args.layers)
    finally:
        shutil.rmtree(args.dir)


def measure(work: pathlib.Path, repeats: int, layers: int) -> None:
    source, copy, workdir, out = (work / name for name in ("hub", "copy", "workdir", "export"))
    total = apart(generate, source, layers)
    print(f"{total / 1e9:.2f} GB in {len(list(source.glob('*.safetensors')))} files")
    umit = [sys.executable, "-m", "launch"]
    inputs = {"cp": source, "import": source, "export": workdir}
    targets = {"cp": copy, "import": workdir, "export": out}
    commands = {
        "cp": ["cp", "-r", str(source), str(copy)],
        "import": [*umit, "import", str(source), "--out", str(workdir)],
        "export": [*umit, "export", str(workdir), "--out", str(out)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    cpu: dict[str, list[float]] = {name: [] for name in commands}
    peaks: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            shutil.rmtree(targets[name], ignore_errors=True)
            os.sync()
            apart(warm, inputs[name])
            for values, value in zip((seconds[name], cpu[name], peaks[name]), run(command), strict=True):
                values.append(round(value, 3))
        shutil.rmtree(copy)  # so that the page cache need not hold it too
    different = apart(differences, source, out)
    for name in ("import", "export"):
        wall, busy = (
            statistics.median(took / base for took, base in zip(values[name], values["cp"], strict=True))
            for values in (seconds, cpu)
        )
        print(
            f"{name}: {wall:.2f} times the seconds of cp and {busy:.2f} times its CPU-seconds (medians of {repeats}; "
            f"cp {statistics.median(seconds['cp']):.1f} s, {statistics.median(cpu['cp']):.1f} of CPU); "
            f"peak {max(peaks[name]):.2f} GB"
        )
    print(f"bit for bit: {'equal' if not different else f'{len(different)} tensors differ, first {different[0]}'}")
    result = {"bytes": total, "seconds": seconds, "cpu_seconds": cpu, "peak_gb": {k: max(v) for k, v in peaks.items()}}
    print(json.dumps(result | {"different": different}))
    if different:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
