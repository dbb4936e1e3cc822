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

from launch.workdir import local

PHANTOM_PATIENTS = 2000
_CONFIGS = pathlib.Path(__file__).parent.parent / "configs"

# The numbers a task is judged by; a task beats its baseline where each of them does.
PRIMARY = {
    "vqa": ("closed_accuracy", "token_f1"),
    "report": ("bleu4",),
    "classification": ("accuracy",),
    "detection": ("mean_iou",),
    "landmark": ("mre_mm",),
}
BEATS, LOSES, UNDECIDED = "beats the baseline", "loses to the baseline", "no difference shown"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", type=local, default=pathlib.Path("runs/quickstart"), help="where it all goes")
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
        "verdicts": by_task(table),
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
    """Our score and the naive baseline's, each with its 95 % interval, synthetic patients first.

    Languages are taken together except for reports, whose metrics have no meaning across languages; 2D and 3D apart.
    The verdict compares intervals: where they overlap, no difference is shown.
    """
    keys = ("dataset", "synthetic", "task", "language", "dims", "metric", "value", "ci95", "baseline", "baseline_ci95")
    table = []
    for row in scores:
        language_wanted = row["language"] != "all" if row["task"] == "report" else row["language"] == "all"
        if row["metric"] in PRIMARY.get(row["task"], ()) and row["mode"] == "strict" and language_wanted:
            about = {key: row[key] for key in (*keys, "n", "n_patients", "heldout")}
            table.append({**about, "verdict": _verdict(row)})
    order = {task: i for i, task in enumerate(PRIMARY)}
    return sorted(table, key=lambda row: (not row["synthetic"], order[row["task"]]))


def _verdict(row: dict[str, Any]) -> str:
    ours, naive = row["ci95"], row["baseline_ci95"]
    if ours is None or naive is None:
        return UNDECIDED
    low, high = (naive, ours) if row["better"] == "higher" else (ours, naive)
    if low[1] < high[0]:
        return BEATS
    return LOSES if high[1] < low[0] else UNDECIDED


def by_task(table: list[dict[str, Any]]) -> dict[str, str]:
    """One verdict for each task on the synthetic patients, 2D and 3D apart: the worst of its rows."""
    worst = (LOSES, UNDECIDED, BEATS)
    verdicts: dict[str, str] = {}
    for row in table:
        if row["synthetic"]:
            name = _name(row)
            verdicts[name] = min(verdicts.get(name, BEATS), row["verdict"], key=worst.index)
    return verdicts


def _name(row: dict[str, Any]) -> str:
    return row["task"] + (f" {row['dims']}D" if row["dims"] else "")


def render(table: list[dict[str, Any]]) -> str:
    """The table as text; every line says whether its patients are real and what was held out."""
    head = ("data", "held out", "task", "metric", "ours [95 %]", "baseline [95 %]", "n", "verdict")
    rows: list[tuple[str, ...]] = [head]
    for row in table:
        cells = [_with_interval(row["value"], row["ci95"]), _with_interval(row["baseline"], row["baseline_ci95"])]
        data = f"{row['dataset']} ({'synthetic' if row['synthetic'] else 'real'})"
        where = f"{row['n_patients']} patients" if row["heldout"] == "patient" else "regions"
        task = _name(row) + ("" if row["language"] == "all" else f" {row['language']}")
        rows.append((data, where, task, row["metric"], *cells, str(row["n"]), row["verdict"]))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    verdicts = [f"{task}: {verdict}" for task, verdict in by_task(table).items()]
    return "\n".join(
        ["", lines[0], "-" * len(lines[0]), *lines[1:], "", "On synthetic patients: " + "; ".join(verdicts)]
    )


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    if value is None:
        return "none"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else " [one patient]")
