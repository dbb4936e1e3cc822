"""`umit quickstart`: raw images -> shards -> stage 1 -> stage 2 -> scores on held-out patients -> PyTorch checkpoint.

Every step is one `umit` command, printed before it runs, in a process of its own: what it shows is what a user types.
A step whose summary.json stands is not run again, so an interrupted quickstart goes on where it stopped.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

PHANTOM_PATIENTS = 1200
_CONFIGS = pathlib.Path(__file__).parent.parent / "configs"

# The one number a task is judged by, and whether more is better.
PRIMARY = {
    "vqa": ("closed_accuracy", True),
    "report": ("bleu4", True),
    "classification": ("accuracy", True),
    "detection": ("mean_iou", True),
    "landmark": ("mre_mm", False),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir", type=pathlib.Path, default=pathlib.Path("runs/quickstart"), help="where it all goes"
    )
    parser.add_argument("--patients", type=int, default=PHANTOM_PATIENTS, help="synthetic patients")
    parser.add_argument(
        "--steps", type=int, nargs=2, metavar=("STAGE1", "STAGE2"), help="optimizer steps of the stages"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    started = time.monotonic()
    workdir = args.workdir
    workdir.mkdir(parents=True, exist_ok=True)
    summaries = {}
    for name, command in _commands(workdir, args.patients, args.steps):
        directory = workdir / name
        if not (directory / "summary.json").is_file():
            _step(name, command)
        summaries[name] = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    scores = json.loads((workdir / "eval" / "scores.json").read_text(encoding="utf-8"))
    table = score_table(scores)
    print(render(table))
    paths = {
        "checkpoint": str(workdir / "stage2"),
        "predictions": str(workdir / "eval" / "predictions.jsonl"),
        "export": str(workdir / "export"),
    }
    for name, path in paths.items():
        print(f"{name:<12} {path}")
    quarantined = {name: _by_reason(summaries[f"data/{name}"]["quarantined"]) for name in ("sampler", "phantom")}
    return {
        "minutes": round((time.monotonic() - started) / 60, 2),
        "minutes_by_step": {name: round(s["seconds"] / 60, 2) for name, s in summaries.items()},
        "scores": table,
        "quarantined": quarantined,
        **paths,
    }


def _commands(workdir: pathlib.Path, patients: int, steps: list[int] | None) -> list[tuple[str, list[str]]]:
    """(folder below the workdir, arguments of `umit`) in order."""
    sampler, phantom = workdir / "data" / "sampler", workdir / "data" / "phantom"
    sources = f"--config.data.sources=(('{phantom}', 1.0), ('{sampler}', 1.0))"
    config = str(_CONFIGS / "quickstart.py")
    train = {}
    for i, stage in enumerate(("stage1", "stage2")):
        train[stage] = ["train", f"--config={config}:{stage}", "--workdir", str(workdir / stage), sources]
        if steps:
            train[stage].append(f"--config.steps={steps[i]}")
    train["stage2"].append(f"--config.init_from={workdir / 'stage1'}")
    held_out = f"--config.sources=('{phantom}', '{sampler}')"
    evaluate = ["eval", f"--config={_CONFIGS / 'eval.py'}", held_out, "--checkpoint", str(workdir / "stage2")]
    seeded = ["--patients", str(patients), "--seed", "0", "--workers", "2"]
    return [
        ("data/sampler", ["prepare", "sampler", "--out", str(sampler)]),
        ("data/phantom", ["prepare", "phantom", *seeded, "--out", str(phantom)]),
        ("stage1", train["stage1"]),
        ("stage2", train["stage2"]),
        ("eval", [*evaluate, "--out", str(workdir / "eval")]),
        ("export", ["export", str(workdir / "stage2"), "--out", str(workdir / "export")]),
    ]


def _step(name: str, command: list[str]) -> None:
    print(f"\n== {name}: umit {' '.join(command)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "launch", *command], check=False)
    if done.returncode:
        raise StepError(f"{name} ended with exit status {done.returncode}; the same command goes on from here")


class StepError(RuntimeError):
    """A step of the quickstart failed; it has printed its own reason."""


def _by_reason(quarantined: list[dict[str, str]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in quarantined:
        counts[item["reason"]] = counts.get(item["reason"], 0) + 1
    return counts


def score_table(scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per dataset and task: our score and the naive baseline's with their 95 % intervals, and the verdict:
    "beats" or "loses" where the intervals do not overlap, else "no difference shown"."""
    table = []
    for row in scores:
        metric, more_is_better = PRIMARY.get(row["task"], (None, True))
        if row["metric"] != metric or row["language"] != "all" or row["mode"] != "strict":
            continue
        ours, naive = row["ci95"], row["baseline_ci95"]
        better, worse = ours[0] > naive[1], ours[1] < naive[0]
        if not more_is_better:
            better, worse = worse, better
        verdict = "beats" if better else "loses" if worse else "no difference shown"
        keys = ("dataset", "task", "metric", "value", "ci95", "baseline", "baseline_ci95", "n", "n_patients", "heldout")
        table.append({**{key: row[key] for key in keys}, "synthetic": row["synthetic"], "verdict": verdict})
    return table


def render(table: list[dict[str, Any]]) -> str:
    """The table as text; every line says whether its patients are real and what was held out."""
    rows = [("data", "held out", "task", "metric", "ours [95 %]", "baseline [95 %]", "n", "verdict")]
    for row in table:
        cells = [f"{row[key]:.3f} [{row[ci][0]:.3f}, {row[ci][1]:.3f}]" for key, ci in _PAIRS]
        data = f"{row['dataset']} ({'synthetic' if row['synthetic'] else 'real'})"
        where = f"{row['n_patients']} patients" if row["heldout"] == "patient" else "regions"
        rows.append((data, where, row["task"], row["metric"], *cells, str(row["n"]), row["verdict"]))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(["", lines[0], "-" * len(lines[0]), *lines[1:], ""])


_PAIRS = (("value", "ci95"), ("baseline", "baseline_ci95"))
