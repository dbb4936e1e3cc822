"""A training step against transformers + torch, on the same samples and the same weights, in one interleaved run.

    python benchmarks/train.py                      54 M parameters, float32, two CPU cores: CPU-seconds and memory
    python benchmarks/train.py --gpu                2b stage 2, bfloat16, rows of 4096 tokens: tokens a second and MFU
    python benchmarks/train.py scaling              our step against tokens a row, rows, layers and devices

Samples have the sizes of the stage-2 mixture (train_samples.py). Three processes (train_sides.py) take turns, a pass
over all samples each: ours packed, ours in torch's batches, and torch, whose batches are padded to their longest
sample as a collator does it. The figure is CPU-seconds per token that is no padding, over torch's in the same round.
Nothing is timed before all three had the same loss to 1e-4, and ours in torch's batches the same gradient norm; that
first pass holds the compilation and is told apart. Peak memory is that of the whole process.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks import train_samples
from configs import sizes

SIDES = ("packed", "padded", "torch")
CLOSE = 1e-4  # relative, of losses and gradient norms
H200_FLOPS = 989e12  # dense bfloat16
SIZE = {  # 54 M parameters, 43 M of them trained
    "vision": {"layers": 6, "width": 384, "heads": 6},
    "text": {
        "vocab_size": 30720,
        "layers": 8,
        "width": 512,
        "heads": 8,
        "kv_heads": 2,
        "mlp_size": 1536,
        "mrope_section": (8, 12, 12),
    },
    "tied_head": True,
}
TOKENS = {
    "image_token_id": train_samples.IMAGE,
    "video_token_id": train_samples.VIDEO,
    "vision_start_token_id": train_samples.START,
    "vision_end_token_id": train_samples.END,
    "bos_token_id": train_samples.BOS,
    "eos_token_id": train_samples.EOS,
}


class Side:
    """A process that answers lines with lines of JSON."""

    def __init__(self, name: str, model_dir: pathlib.Path, settings: dict[str, Any]):
        command = [sys.executable, str(pathlib.Path(__file__).with_name("train_sides.py")), name, str(model_dir)]
        environment = dict(os.environ)
        if not settings["gpu"]:
            environment |= {"JAX_PLATFORMS": "cpu", "OMP_WAIT_POLICY": "passive"}  # waiting threads shall not count
        else:
            environment |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.name = name
        self._process = subprocess.Popen(
            [*command, json.dumps(settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: ended with status {self._process.wait()}")
        return json.loads(line)

    def ask(self) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write("pass\n")
        self._process.stdin.flush()
        return self.answer()

    def end(self) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.close()
        last = self.answer()
        self._process.wait()
        return last


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Passes of all sides in turn -> figures. Raises SystemExit where their losses differ."""
    settings = settings_of(args)
    drawn = train_samples.draw(args.samples, settings["vocab_size"], args.seed, args.most)
    tokens = sum(len(sample.example.tokens_S) for sample in drawn)
    patches = sum(len(sample.example.patches_PC) for sample in drawn)
    wanted = [side for side in SIDES if not (args.gpu and side == "padded")]
    with tempfile.TemporaryDirectory(prefix="umit_benchmark_") as scratch:
        write_model(pathlib.Path(scratch), args.gpu)
        sides, first = {}, {}
        for name in wanted:  # one after the other: they compile
            sides[name] = Side(name, pathlib.Path(scratch), settings)
            first[name] = sides[name].answer()
        check(first)
        rounds: list[dict[str, Any]] = []
        for number in range(args.rounds):
            order = wanted[number % len(wanted) :] + wanted[: number % len(wanted)]
            rounds.append({name: sides[name].ask() for name in order})
            print(f"round {number + 1} of {args.rounds}", {n: round(rounds[-1][n]["cpu_seconds"], 1) for n in order},
                  file=sys.stderr)  # fmt: skip
        last = {name: side.end() for name, side in sides.items()}
    if "padded" in wanted:
        for passed in rounds:
            same_losses(passed["padded"]["losses"], passed["torch"]["losses"], "losses of the timed steps")
    return {
        "samples": args.samples,
        "tokens": tokens,
        "patches": patches,
        "first_pass": {n: {"cpu_seconds": round(first[n]["cpu_seconds"], 1)} for n in wanted},
        **ratios(rounds, last, "seconds" if args.gpu else "cpu_seconds"),
        "per_second": {n: round(tokens / statistics.median(r[n]["seconds"] for r in rounds)) for n in wanted},
        "fill": {n: round(tokens / last[n]["token_slots"], 3) for n in wanted},
        "peak_mb": {n: round(last[n]["peak_mb"]) for n in wanted},
        "shapes": last["packed"]["rows_tokens_patches"],
        **(utilisation(rounds, last["packed"]) if args.gpu else {}),
    }


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    size = sizes.SIZES["2b"] if args.gpu else SIZE
    return {
        **{
            key: getattr(args, key)
            for key in ("samples", "seed", "most", "batch", "rows", "remat", "loss_chunk", "gpu")
        },
        "vocab_size": size["text"]["vocab_size"],
        "dtype": "bfloat16" if args.gpu else "float32",
        "row_tokens": 4096 if args.gpu else 0,
        "threads": os.cpu_count() if args.gpu else 2,
    }


def write_model(out: pathlib.Path, gpu: bool) -> None:
    """Random weights as a Hugging Face directory, which all sides read."""
    import jax

    from umit_jax.convert.to_hf import write_safetensors
    from umit_jax.model.config import ModelConfig
    from umit_jax.model.param import init_params

    config = ModelConfig.from_dict(sizes.SIZES["2b"] if gpu else SIZE, TOKENS)
    params = init_params(config, jax.random.key(0))
    write_safetensors(jax.device_get(params), config, out)
    (out / "config.json").write_text(json.dumps(config.to_hf()))


def check(first: dict[str, dict[str, Any]]) -> None:
    """All sides had the same loss, and those with the same batches the same gradient."""

    def mean(side: dict[str, Any]) -> float:
        return sum(a * b for a, b in zip(side["losses"], side["weights"], strict=True)) / sum(side["weights"])

    names = list(first)
    same_losses([mean(first[n]) for n in names], [mean(first["torch"])] * len(names), "loss of all samples")
    if "padded" in first:
        for key in ("losses", "grad_norms"):
            same_losses(first["padded"][key], first["torch"][key], f"{key} of the same batches")


def same_losses(found: list[float], expected: list[float], what: str) -> None:
    if any(abs(a - b) > CLOSE * abs(b) for a, b in zip(found, expected, strict=True)):
        raise SystemExit(f"{what}: ours {found}, torch {expected}")


def ratios(rounds: list[dict[str, Any]], last: dict[str, Any], unit: str) -> dict[str, Any]:
    """Ours over torch: `unit` of each round, and memory."""
    found: dict[str, Any] = {"unit": unit, "over_torch": {}, "memory_over_torch": {}}
    key = "peak_mb" if unit == "cpu_seconds" else "device_peak_mb"
    for name in rounds[0]:
        if name != "torch":
            each = sorted(passed[name][unit] / passed["torch"][unit] for passed in rounds)
            found["over_torch"][name] = {
                "median": round(statistics.median(each), 3),
                "least": round(each[0], 3),
                "most": round(each[-1], 3),
            }
            found["memory_over_torch"][name] = round(last[name][key] / last["torch"][key], 3)
    found[unit] = {n: round(statistics.median(r[n][unit] for r in rounds), 2) for n in rounds[0]}
    return found


def utilisation(rounds: list[dict[str, Any]], last: dict[str, Any]) -> dict[str, Any]:
    """Model FLOPs of our packed rows (as if they were full) over the card's peak."""
    from flax.traverse_util import flatten_dict

    from umit_jax.aot.flops import model_flops
    from umit_jax.model.config import ModelConfig
    from umit_jax.model.param import abstract_params

    config = ModelConfig.from_dict(sizes.SIZES["2b"], TOKENS)
    frozen = {path for path in flatten_dict(abstract_params(config), sep="/") if path.startswith("vision/")}
    ((rows, tokens, patches),) = last["rows_tokens_patches"]
    parts = model_flops(config, frozen, rows=rows, tokens=tokens, patches=patches, image_patches=4 * 768)
    steps = last["token_slots"] / (rows * tokens)
    seconds = statistics.median(passed["packed"]["seconds"] for passed in rounds) / steps
    return {"flops_a_step": sum(parts.values()), "mfu": round(sum(parts.values()) / seconds / H200_FLOPS, 3)}


def show(figures: dict[str, Any]) -> None:
    unit = figures["unit"].replace("_", "-")
    print(
        f"| side | {unit} a pass | over torch (least to most) | peak MB | over torch | fill | first pass, CPU-seconds |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in figures["per_second"]:
        ratio, memory = "1", "1"
        if name != "torch":
            each = figures["over_torch"][name]
            ratio = f"{each['median']:.3f} ({each['least']:.3f} to {each['most']:.3f})"
            memory = f"{figures['memory_over_torch'][name]:.3f}"
        cells = [name, figures[figures["unit"]][name], ratio, figures["peak_mb"][name], memory]
        cells += [figures["fill"][name], figures["first_pass"][name]["cpu_seconds"]]
        print("| " + " | ".join(map(str, cells)) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=("compare", "scaling"), default="compare")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8, help="samples of a batch of torch's")
    parser.add_argument("--rows", type=int, default=1, help="packed rows of a step of ours")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=10**6, help="vision tokens that an image has at most")
    parser.add_argument("--remat", default="dots", help="of our step (umit_jax/model/param.py)")
    parser.add_argument("--loss-chunk", type=int, default=256)
    parser.add_argument("--gpu", action="store_true", help="the 2b in bfloat16 on an accelerator")
    args = parser.parse_args()
    if args.command == "scaling":
        from benchmarks.train_scaling import scaling

        print(json.dumps(scaling(args.rounds), indent=1))
        return
    figures = compare(args)
    show(figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
