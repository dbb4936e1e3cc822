"""scores.json and robustness.json -> rows of the page's tables, as text and as places on the axis of their small plots.

One table for each task, one of the numbers that tasks are summed up by, one of other ways of asking.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from umit_jax.batch import TASKS
from umit_jax.eval.modes import STRICT

MEAN_OF = ("closed_accuracy", "token_f1", "accuracy", "bleu4", "mean_iou", "mre_mm")  # what a task is summed up by


@dataclasses.dataclass(frozen=True)
class TableRow:
    """One number as text, and where it stands on an axis from 0 to 1: value, interval, baseline and its interval."""

    row: Mapping[str, Any]
    value: str
    interval: str
    baseline: str
    verdict: str  # "better", "worse", "same" or "" where there is nothing to compare
    at: float
    low: float | None
    high: float | None
    baseline_at: float | None
    baseline_low: float | None
    baseline_high: float | None
    top: str  # the right end of the axis


def by_task(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[TableRow]]:
    """Rows by task in the tasks' own order, strict ones first, each with its plot."""
    order = {task: i for i, task in enumerate(TASKS)}
    tables: dict[str, list[TableRow]] = {}
    for task in sorted({row["task"] for row in rows}, key=lambda task: (order.get(task, len(order)), task)):
        own = [row for row in rows if row["task"] == task]
        tables[task] = [_table_row(row, own) for row in sorted(own, key=lambda row: row["mode"] != STRICT)]
    return tables


def headlines(tables: Mapping[str, Sequence[TableRow]]) -> list[TableRow]:
    """The strict number that each task is summed up by, of each dataset, languages together where they can be."""
    found: dict[tuple[Any, ...], TableRow] = {}
    for task, rows in tables.items():
        for table_row in rows:
            row = table_row.row
            if row["mode"] != STRICT or row["metric"] not in MEAN_OF:
                continue
            alone = row["language"] != "all" and any(
                other.row["language"] == "all" and _same(other.row, row) for other in rows
            )
            if not alone:
                keys = ("dataset", "language", "metric", "dims", "heldout", "synthetic")
                found[task, *(row.get(key) for key in keys)] = table_row
    return list(found.values())


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    keys = ("dataset", "metric", "mode", "dims", "heldout", "synthetic")
    return all(a.get(key) == b.get(key) for key in keys)


def _table_row(row: Mapping[str, Any], own: Sequence[Mapping[str, Any]]) -> TableRow:
    ci95, baseline_ci95 = row["ci95"], row["baseline_ci95"]
    numbers = [n for other in own if other["metric"] == row["metric"] for n in _numbers(other)]
    top = 1.0 if max(numbers) <= 1 and min(numbers) >= 0 and not row["metric"].endswith("_mm") else max(numbers)
    scale = top if top > 0 else 1.0
    place = {"at": row["value"], "baseline_at": row["baseline"]}
    place |= {"low": ci95 and ci95[0], "high": ci95 and ci95[1]}
    place |= {"baseline_low": baseline_ci95 and baseline_ci95[0], "baseline_high": baseline_ci95 and baseline_ci95[1]}
    shares = {name: None if n is None else min(max(n / scale, 0.0), 1.0) for name, n in place.items()}
    baseline = "" if row["baseline"] is None else number(row["baseline"])
    return TableRow(
        row,
        number(row["value"]),
        span(ci95),
        f"{baseline} {span(baseline_ci95)}".strip(),
        compared(row),
        top=number(top),
        **shares,  # type: ignore[arg-type]
    )


@dataclasses.dataclass(frozen=True)
class OtherWay:
    """One row of robustness.json as text."""

    row: Mapping[str, Any]
    value: str
    interval: str
    main: str
    difference: str
    p: str


def other_ways(rows: Sequence[Mapping[str, Any]]) -> list[OtherWay]:
    """Rows of robustness.json, those of one way together."""
    return [_other_way(row) for row in rows]


def _other_way(row: Mapping[str, Any]) -> OtherWay:
    main, difference, p = row["main"], row["difference"], row["p"]
    apart = "" if difference is None else f"{difference:+.3f} {span(row['difference_ci95'])}".strip()
    before = "" if main is None else number(main)
    return OtherWay(row, number(row["value"]), span(row["ci95"]), before, apart, "" if p is None else f"{p:.4f}")


def _numbers(row: Mapping[str, Any]) -> list[float]:
    found = [row["value"], row["baseline"], *(row["ci95"] or ()), *(row["baseline_ci95"] or ())]
    return [n for n in found if n is not None]


def compared(row: Mapping[str, Any]) -> str:
    """Whether the two intervals are apart, and on which side."""
    ours, naive = row["ci95"], row["baseline_ci95"]
    if ours is None or naive is None:
        return ""
    if row["beats_baseline"]:
        return "better"
    worse = ours[1] < naive[0] if row["better"] == "higher" else ours[0] > naive[1]
    return "worse" if worse else "same"


def number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def span(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"[{number(interval[0])}, {number(interval[1])}]"
