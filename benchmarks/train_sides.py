"""One side of benchmarks/train.py in a process of its own, which trains when it is told to.

    python benchmarks/train_sides.py packed|padded|torch MODEL_DIR SETTINGS_JSON

| side   | batches                                  | program                                                      |
| packed | rows that hold several samples           | umit_jax's jitted step                                       |
| padded | every sample padded to the longest       | the same                                                     |
| torch  | the same, as a collator makes them       | transformers with sdpa; clipping and fused AdamW, as Trainer |

After a first pass over all batches with learning rate 0, in which the programs are compiled and whose losses all
sides must share, every line on stdin is answered by a pass: {"cpu_seconds", "seconds", "losses", "weights",
"grad_norms"}.
The last line, when stdin ends, is {"peak_mb"} of this process (and of the device, where there is one).
"""

import json
import os
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks import train_samples
from benchmarks.train_samples import Sample

Step = Callable[[int], dict[str, float]]  # number of the batch -> loss, weight, grad_norm
RATE, CLIP, DECAY, B1, B2 = 1e-4, 1.0, 0.01, 0.9, 0.95
FROZEN = "vision/"  # stage 2: the tower does not train


def main() -> None:
    side, model_dir, settings = sys.argv[1], pathlib.Path(sys.argv[2]), json.loads(sys.argv[3])
    drawn = train_samples.draw(settings["samples"], settings["vocab_size"], settings["seed"], settings["most"])
    step, batches, peak = (theirs if side == "torch" else ours)(side, model_dir, drawn, settings)
    _answer({"rss_before_mb": _peak_mb(), **one_pass(step, batches)})
    for _ in sys.stdin:
        _answer(one_pass(step, batches))
    _answer({"peak_mb": _peak_mb(), **peak()})


def one_pass(step: Step, batches: int) -> dict[str, Any]:
    cpu, wall = time.process_time(), time.perf_counter()
    results = [step(number) for number in range(batches)]
    taken = {"cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - wall}
    names = {"losses": "loss", "weights": "weight", "grad_norms": "grad_norm"}
    return {**taken, **{name: [result[key] for result in results] for name, key in names.items()}}


def groups(samples: Sequence[Sample], batch: int) -> list[Sequence[Sample]]:
    return [samples[i : i + batch] for i in range(0, len(samples), batch)]


def ours(side: str, model_dir: pathlib.Path, samples: Sequence[Sample], settings: dict[str, Any]) -> Any:
    import jax
    import jax.numpy as jnp
    from flax.traverse_util import flatten_dict

    from configs import common
    from umit_jax.convert.from_hf import open_model, place
    from umit_jax.model.param import abstract_params
    from umit_jax.parallel.mesh import global_batch, make_mesh
    from umit_jax.train import optimizer as optimizers
    from umit_jax.train.state import abstract_state, create
    from umit_jax.train.step import Compute, make_step

    hosted = groups(samples, settings["batch"])
    if side == "packed":
        length = settings["row_tokens"]
        batches = train_samples.packed(samples, settings["rows"], 0 if length else len(hosted), length)
    else:
        batches = [train_samples.padded(group) for group in hosted]
    model = open_model(model_dir)
    config, mesh = model.config, make_mesh({"data": -1})
    adam = common.train().optimizer
    adam.update(learning_rate=RATE, clip_norm=CLIP, weight_decay=DECAY, b1=B1, b2=B2)
    patterns = ((f"{FROZEN}.*", None), (".*", 1.0))
    trained, frozen = optimizers.multipliers(flatten_dict(abstract_params(config), sep="/"), patterns)

    def rate(step: Any) -> jax.Array:
        return jnp.where(step < len(batches), 0.0, RATE)

    optimizer = optimizers.adamw(adam, rate, trained)
    compute = Compute(jnp.dtype(settings["dtype"]), settings["remat"], settings["loss_chunk"], "auto")
    abstract = abstract_state(config, mesh, optimizer, frozen, compute.dtype)
    run = make_step(config, abstract, optimizer, rate, mesh, compute)
    state = create(config, abstract, optimizer, 0, lambda shardings: place(model, shardings))

    def step(number: int) -> dict[str, float]:
        nonlocal state
        state, metrics = run(state, global_batch(mesh, batches[number]))
        loss, weight = float(metrics["loss_sum"]), float(metrics["weight"])
        return {"loss": loss / weight, "weight": weight, "grad_norm": float(metrics["grad_norm"])}

    def peak() -> dict[str, Any]:
        shapes = sorted({(*batch.tokens_BS.shape, batch.patches_BPC.shape[1]) for batch in batches})
        slots = sum(batch.tokens_BS.size for batch in batches), sum(b.patch_segments_BP.size for b in batches)
        device = jax.devices()[0].memory_stats() or {}
        on_device = {"device_peak_mb": device["peak_bytes_in_use"] / 2**20} if "peak_bytes_in_use" in device else {}
        return {"rows_tokens_patches": shapes, "token_slots": slots[0], "patch_slots": slots[1], **on_device}

    return step, len(batches), peak


def theirs(_: str, model_dir: pathlib.Path, samples: Sequence[Sample], settings: dict[str, Any]) -> Any:
    import torch
    from transformers import Qwen2VLForConditionalGeneration

    torch.set_num_threads(settings["threads"])
    device = torch.device("cuda" if settings["gpu"] else "cpu")
    values = json.loads((model_dir / "config.json").read_text())
    model = Qwen2VLForConditionalGeneration.from_pretrained(
        model_dir, attn_implementation="sdpa", dtype=torch.float32
    ).to(device)  # type: ignore[arg-type]
    model.train()
    if settings["gpu"]:  # 2b with its logits needs it even on a large card
        model.gradient_checkpointing_enable()
    for parameter in model.model.visual.parameters():
        parameter.requires_grad = False
    for parameter in model.model.visual.merger.parameters():  # the projector, in our words
        parameter.requires_grad = True
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    decayed = [p for name, p in trained.items() if not _without_decay(name)]
    others = [p for name, p in trained.items() if _without_decay(name)]
    parameters = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, betas=(B1, B2), fused=True)
    hosted = groups(samples, settings["batch"])
    numbers = [train_samples.collated(group, values["image_mean"], values["image_std"]) for group in hosted]
    batches = [{key: torch.from_numpy(value) for key, value in batch.items()} for batch in numbers]
    done = 0

    def step(number: int) -> dict[str, float]:
        nonlocal done
        batch = {key: value.to(device) for key, value in batches[number].items()}
        for group in optimizer.param_groups:
            group["lr"] = 0.0 if done < len(batches) else RATE
        with torch.autocast(device.type, torch.bfloat16, enabled=settings["dtype"] == "bfloat16"):
            loss = model(**batch, use_cache=False).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(list(trained.values()), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done += 1
        weight = int((batch["labels"] != -100).sum())
        return {"loss": float(loss.detach()), "weight": weight, "grad_norm": float(norm)}

    def peak() -> dict[str, Any]:
        slots = sum(batch["input_ids"].size for batch in numbers)
        on_device = {"device_peak_mb": torch.cuda.max_memory_allocated() / 2**20} if settings["gpu"] else {}
        return {"token_slots": slots, **on_device}

    return step, len(batches), peak


def _without_decay(name: str) -> bool:
    return name.endswith("bias") or "norm" in name or "ln_q" in name


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _answer(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
