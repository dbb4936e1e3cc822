"""The quickstart's table says plainly what beats the naive baseline and what does not."""

from launch.quickstart import BEATS, LOSES, UNDECIDED, by_task, render, score_table


def row(task, metric, ours, naive, *, better="higher", dims=None, language="all", synthetic=True):
    about = {"dataset": "phantom" if synthetic else "sampler", "heldout": "patient", "n": 9, "n_patients": 5}
    numbers = {"value": sum(ours) / 2, "ci95": ours, "baseline": sum(naive) / 2, "baseline_ci95": naive}
    about |= {"task": task, "metric": metric, "mode": "strict", "better": better, "dims": dims, "language": language}
    return {**about, **numbers, "synthetic": synthetic}


SCORES = [
    row("landmark", "mre_mm", [4.0, 5.0], [6.0, 7.0], better="lower", dims=2),
    row("landmark", "mre_mm", [4.0, 6.5], [6.0, 7.0], better="lower", dims=3),
    row("report", "bleu4", [0.5, 0.6], [0.1, 0.2], language="en"),
    row("report", "bleu4", [0.1, 0.2], [0.5, 0.6], language="zh"),
    row("vqa", "closed_accuracy", [0.7, 0.8], [0.4, 0.5]),
    row("vqa", "closed_accuracy", [0.7, 0.8], [0.4, 0.5], language="en"),
    row("vqa", "unparsed", [0.0, 0.1], [0.0, 0.1]),
    row("vqa", "closed_accuracy", [0.1, 0.2], [0.4, 0.5], synthetic=False),
]


def test_a_task_beats_its_baseline_only_where_every_row_does():
    verdicts = by_task(score_table(SCORES))
    assert verdicts == {"vqa": BEATS, "report": LOSES, "landmark 2D": BEATS, "landmark 3D": UNDECIDED}


def test_every_line_says_whether_the_patients_are_real():
    lines = render(score_table(SCORES)).splitlines()
    assert sum("phantom (synthetic)" in line for line in lines) == 5
    assert sum("sampler (real)" in line for line in lines) == 1


def test_a_score_without_interval_shows_no_difference():
    lone = {**row("report", "bleu4", [0.5, 0.6], [0.1, 0.2], language="en"), "ci95": None}
    (only,) = score_table([lone])
    assert only["verdict"] == UNDECIDED
    assert "[one patient]" in render([only])
