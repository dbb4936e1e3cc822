"""The numbers of a compiled step: memory, FLOPs, collectives, and a stated roofline for its time.

Step time = the longest of four, as if each hid behind the others perfectly; a real step takes longer:
  compute  FLOPs that a chip executes / its peak
  hbm      arguments and temporaries, each written and read once / HBM bandwidth; a floor
  ici      bytes a chip sends inside its slice / half of its ICI bandwidth (one direction)
  dcn      bytes a chip sends to other slices / its share of the data-centre network
"""

from typing import Any

import ml_collections
from flax.traverse_util import flatten_dict

from umit_jax.aot.collectives import Collective, collectives
from umit_jax.aot.compile import Compiled
from umit_jax.aot.flops import model_flops
from umit_jax.aot.hlo import Module
from umit_jax.aot.hlo_flops import flops
from umit_jax.aot.topology import Topology
from umit_jax.model.config import ModelConfig


def summarise(
    config: ml_collections.ConfigDict, model_config: ModelConfig, topology: Topology, compiled: Compiled
) -> dict[str, Any]:
    """The result of `umit compile`. FLOPs are of the whole global step, bytes of one device."""
    data, chip = config.data, topology.chip
    hbm = chip.hbm_bytes // chip.devices
    parts = model_flops(
        model_config,
        flatten_dict(compiled.frozen, sep="/").keys(),
        rows=data.rows,
        tokens=data.row_tokens,
        patches=data.row_patches,
        image_patches=data.max_pixels // model_config.vision.patch_size**2,
    )
    result: dict[str, Any] = {
        "topology": topology.name,
        "slices": topology.slices,
        "devices": compiled.devices,
        "mesh": compiled.mesh,
        "rows": data.rows,
        "tokens_per_row": data.row_tokens,
        "patches_per_row": data.row_patches,
        "peak_bytes": compiled.peak_bytes,
        "argument_bytes": compiled.argument_bytes,
        "temp_bytes": compiled.temp_bytes,
        "hbm_bytes": hbm,
        "fits": compiled.hlo is not None and compiled.peak_bytes <= hbm,
        "model_flops": sum(parts.values()),
        "model_flops_of": parts,
        "compile_seconds": round(compiled.seconds, 2),
        "compile_cpu_seconds": round(compiled.cpu_seconds, 2),
        "flops": None,
        "collectives": None,
        "step_seconds_estimate": None,
        "roofline": None,
    }
    if compiled.hlo is None:
        return result
    # A loop over chunks of tokens runs as often as the fullest row needs; here every token carries loss.
    program = list(Module(compiled.hlo).walk({"vocabulary_loss": compiled.loss_chunks}))
    moved = collectives(program, compiled.devices, topology.slices)
    per_device = sum(flops(executed) * executed.times for executed in program)
    memory = 2.0 * (compiled.argument_bytes + compiled.temp_bytes)
    roofline = {
        "compute": per_device / (chip.peak_flops / chip.devices),
        "hbm": memory / (chip.hbm_rate / chip.devices),
        "ici": sum(c.ici_bytes * c.times for c in moved) / (chip.ici_rate / 2 / chip.devices),
        "dcn": sum(c.dcn_bytes * c.times for c in moved) / (chip.dcn_rate / chip.devices),
    }
    return result | {
        "flops": per_device * compiled.devices,
        "collectives": table(moved),
        "step_seconds_estimate": max(roofline.values()),
        "roofline": roofline,
    }


def table(moved: list[Collective]) -> list[dict[str, Any]]:
    """Collectives added up by kind, place, group and slices, most bytes first: their number, how often they run, the
    largest one's bytes and all bytes a step."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for c in moved:
        key = (c.kind, c.place, c.group, c.slices)
        start = dict(zip(("kind", "place", "group", "slices"), key, strict=True))
        row = rows.setdefault(key, {**start, "count": 0, "runs": 0.0, "largest_bytes": 0, "bytes": 0.0})
        row["count"] += 1
        row["runs"] += c.times
        row["largest_bytes"] = max(row["largest_bytes"], c.bytes)
        row["bytes"] += c.bytes * c.times
    return sorted(rows.values(), key=lambda row: -row["bytes"])


def as_text(result: dict[str, Any]) -> str:
    """A few lines for people."""
    gib, mesh = 1 << 30, " x ".join(f"{name} {size}" for name, size in result["mesh"].items())
    slices = f" x {result['slices']} slices" if result["slices"] > 1 else ""
    lines = [
        f"{result['topology']}{slices}: {result['devices']} devices as {mesh}",
        f"{result['rows']} rows of {result['tokens_per_row']} tokens and {result['patches_per_row']} patches",
        f"memory of a device: {result['peak_bytes'] / gib:.2f} GiB ({result['argument_bytes'] / gib:.2f} state and "
        f"batch, {result['temp_bytes'] / gib:.2f} temporaries) of {result['hbm_bytes'] / gib:.0f}: "
        f"{'fits' if result['fits'] else 'does NOT fit'}",
        f"compiled in {result['compile_seconds']:.0f} s",
    ]
    if result["roofline"] is None:
        return "\n".join(lines)
    times = ", ".join(f"{name} {seconds:.3f}" for name, seconds in result["roofline"].items())
    lines.append(f"FLOPs of a step: {result['flops']:.3g}, of the model {result['model_flops']:.3g}")
    lines.append(f"roofline, seconds: {times}; a step takes at least {result['step_seconds_estimate']:.3f} s")
    lines += [
        f"  {row['kind']:<18} {row['place']:<10} {row['count']:>3} of them, group {row['group']:<5} "
        f"{row['bytes'] / 1e9:>9.3f} GB a step, largest {row['largest_bytes'] / 1e6:.1f} MB"
        for row in result["collectives"]
    ]
    return "\n".join(lines)
