"""A run of two processes is killed twenty times at random moments; its loss curve must be that of one left alone.

    python benchmarks/soak.py [--kills 20] [--seed 0] [--dir SCRATCH]

Each time one process, drawn by the seed, gets SIGKILL: while it starts, computes or saves. The other has to notice by
itself. Both are then started again, as a scheduler would, until all steps are done. Compared with the undisturbed run:
samples and losses of every step; the status is 1 where they differ, or where more was lost than the steps since the
last checkpoint. The model is a toy of the tests: what is tried out is everything around the step.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
EVERY = 5  # steps between checkpoints
NOTICE = 100.0  # seconds after which a process that has not noticed is killed, and counted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--minutes", type=float, default=25.0, help="no further kill after so long")
    parser.add_argument("--dir", type=pathlib.Path, help="scratch directory, kept")
    args = parser.parse_args()
    scratch = args.dir or pathlib.Path(tempfile.mkdtemp(prefix="umit_soak_"))
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(scratch / "compiled")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # a start is then 5 CPU-seconds instead of 11
    left_alone, killed = scratch / "left_alone", scratch / "killed"
    began = time.monotonic()
    for process in start(left_alone, args.steps):
        if process.wait():
            raise SystemExit(f"the undisturbed run failed: {output(left_alone)}")
    startup = first_step_seconds(left_alone)
    report = soak(killed, args, random.Random(args.seed), startup)
    differs = compare(left_alone, killed)
    summary = json.loads(output(killed).splitlines()[-1])
    print(json.dumps({**report, **differs, "goodput": summary["goodput"], "minutes": minutes(began)}, indent=1))
    ok = differs["same_samples"] and differs["largest_difference"] <= 1e-6 and report["too_much_lost"] == 0
    return 0 if ok else 1


def start(workdir: pathlib.Path, steps: int) -> list[subprocess.Popen[bytes]]:
    """Two processes of one device each."""
    workdir.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = {"steps": steps, "checkpoint_every": EVERY, "log_samples": True, "optimizer__learning_rate": 1e-3}
    processes = []
    for index in range(2):
        arguments = {"workdir": str(workdir), "devices": 1, "mesh": {"fsdp": 2}, "config": config}
        arguments["processes"] = [address, 2, index]
        with open(workdir.parent / f"{workdir.name}-{index}.log", "wb") as log:
            command = [sys.executable, "-m", "tests.train.toy", json.dumps(arguments)]
            processes.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT))
    return processes


def soak(workdir: pathlib.Path, args: argparse.Namespace, rng: random.Random, startup: float) -> dict[str, Any]:
    """Kills and starts again until the run is done; what was seen meanwhile."""
    began, noticed, lost, moments = time.monotonic(), [], [], []
    while True:
        processes = start(workdir, args.steps)
        at = last_step(workdir)
        if len(moments) < args.kills and time.monotonic() - began < 60 * args.minutes:
            moments.append(wait_for_moment(workdir, processes, at, rng, startup))
            if any(process.poll() for process in processes):
                raise SystemExit(f"a process failed without a kill: {output(workdir)}")
            victim = rng.randrange(2)
            processes[victim].send_signal(signal.SIGKILL)
            processes[victim].wait()
            noticed.append(seconds_until_it_ends(processes[1 - victim]))
            reached, kept = last_step(workdir), newest_checkpoint(workdir)
            lost.append(reached - kept)
            what = f"{moments[-1]}, process {victim}, step {reached}, saved {kept}, noticed in {noticed[-1]:.1f} s"
            print(f"kill {len(moments)}: {what}", flush=True)
            continue
        statuses = [process.wait() for process in processes]
        if any(statuses):
            raise SystemExit(f"statuses {statuses} without a kill: {output(workdir)}")
        break
    did_not_notice = sum(seconds >= NOTICE for seconds in noticed)
    return {
        "kills": len(moments),
        "moments": {kind: moments.count(kind) for kind in sorted(set(moments))},
        "steps_lost": {"largest": max(lost, default=0), "mean": round(sum(lost) / max(len(lost), 1), 2)},
        # The checkpoint of the last multiple may still be in the making, as its state is copied before it is written.
        "too_much_lost": sum(steps >= 2 * EVERY + 1 for steps in lost),
        "seconds_to_notice": {"largest": round(max(noticed, default=0.0), 1), "never": did_not_notice},
    }


def wait_for_moment(workdir: pathlib.Path, processes: list, at: int, rng: random.Random, startup: float) -> str:
    """Returns at a random moment: one in four while the processes start, otherwise some steps later."""
    if rng.random() < 0.25:
        time.sleep(rng.random() * startup)
        return "starting"
    steps, fraction = rng.randint(1, 3 * EVERY), rng.random()
    while last_step(workdir) < at + steps:
        if any(process.poll() is not None for process in processes):
            return "done"
        time.sleep(0.005)
    time.sleep(fraction * 0.2)
    saving = any(not path.name.isdigit() for path in (workdir / "checkpoints").iterdir())
    return "saving" if saving else "stepping"


def seconds_until_it_ends(process: subprocess.Popen[bytes]) -> float:
    began = time.monotonic()
    try:
        process.wait(NOTICE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return time.monotonic() - began


def lines(workdir: pathlib.Path) -> list[dict[str, Any]]:
    path = workdir / "metrics.jsonl"
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def last_step(workdir: pathlib.Path) -> int:
    return max((line["step"] for line in lines(workdir)[-1:]), default=0)


def newest_checkpoint(workdir: pathlib.Path) -> int:
    return max((int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit()), default=0)


def first_step_seconds(workdir: pathlib.Path) -> float:
    seconds = json.loads(output(workdir).splitlines()[-1])["goodput"]["seconds"]
    return seconds["init"] + seconds["compile"]


def output(workdir: pathlib.Path) -> str:
    return (workdir.parent / f"{workdir.name}-0.log").read_text(errors="replace")


def compare(expected: pathlib.Path, found: pathlib.Path) -> dict[str, Any]:
    ours, theirs = lines(found), lines(expected)
    same = [line["step"] for line in ours] == [line["step"] for line in theirs]
    same = same and all(a["sample_ids"] == b["sample_ids"] for a, b in zip(ours, theirs, strict=True))
    differences = [abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in zip(ours, theirs, strict=False)]
    return {"steps": len(ours), "same_samples": same, "largest_difference": max(differences)}


def minutes(began: float) -> float:
    return round((time.monotonic() - began) / 60, 1)


if __name__ == "__main__":
    sys.exit(main())
