"""CPU-seconds of `umit score` on made-up predictions of all five tasks: python benchmarks/score.py [--lines 10000]"""

import argparse
import json
import pathlib
import random
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from umit_jax.eval.predictions import read_predictions
from umit_jax.eval.score import score
from umit_jax.targets import Frame, boxes_target, options_target, points_target, text_target

FRAME = Frame("raw", (1000, 1000), (0.5, 0.5))
SENTENCE = (
    "the heart is normal in size lungs are clear no pleural effusion or pneumothorax small left nodule right base"
    " opacity consistent with atelectasis"
)
WORDS = SENTENCE.split()


def line(i: int, rng: random.Random) -> dict:
    """One prediction; three of a patient, twelve topics."""

    def words(count: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(count))

    x, y = rng.randrange(700), rng.randrange(700)
    task, text, truth, baseline = (
        ("vqa", rng.choice(["1:yes", "2:no"]), *(options_target(["yes", "no"], k, 1) for k in (rng.randrange(2), 0))),
        ("vqa", words(4), text_target(words(3)), text_target("heart")),
        ("report", words(50), text_target(words(50)), text_target(words(50))),
        (
            "detection",
            f"({x},{y}),(800,900)",
            *(boxes_target(FRAME, [("a", box)]) for box in ([100, 100, 700, 800], [0, 0, 500, 500])),
        ),
        ("landmark", f"[{x},{y}]", *(points_target(FRAME, [("a", point)]) for point in ([500, 500], [400, 500]))),
    )[i % 5]
    about = {"id": str(i), "dataset": f"d{i % 5}", "language": "en", "patient_id": f"p{i // 3}", "task": task}
    about |= {"modality": rng.choice(["CT", "DX"]), "topic": f"t{rng.randrange(12)}"}
    return {**about, "text": text, "truth": truth, "baseline": baseline}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=10_000)
    args = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "predictions.jsonl"
        path.write_text("".join(json.dumps(line(i, rng)) + "\n" for i in range(args.lines)), encoding="utf-8")
        started = time.process_time()
        predictions = read_predictions(path)
        read = time.process_time()
        scores = score(predictions)
        done = time.process_time()
    print(f"{args.lines} predictions: read {read - started:.1f}, scored {done - read:.1f} CPU-seconds;", end=" ")
    print(f"{len(scores.rows)} rows, {len(scores.breakdown)} of parts")


if __name__ == "__main__":
    main()
