"""docs/metrics.md defines exactly the metrics that the code computes."""

import pathlib
import re

from umit_jax.eval.modes import MODES, registry

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "metrics.md"


def table():
    """The lines of the section that defines every metric; other tables of the page have columns of their own."""
    return PAGE.read_text(encoding="utf-8").split("\n## Every metric\n")[1].split("\n## ")[0].splitlines()


def listed():
    """(mode, metric) of every row of the table whose first cell is one mode and whose second lists metrics."""
    found = set()
    for line in table():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) >= 5 and (mode := re.fullmatch(r"`(\w+)`", cells[0])):
            found |= {(mode[1], metric) for metric in re.findall(r"`([^`]+)`", cells[1])}
    return found


def test_the_table_lists_every_metric_of_every_mode_and_no_other():
    computed = {(row["mode"], row["metric"]) for row in registry()}
    assert listed() == computed
    assert {mode for mode, _ in computed} == set(MODES)


def test_every_metric_of_the_table_has_a_definition():
    for line in [line for line in table() if line.startswith("| `")]:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        assert len(cells) == 5, line
        assert cells[2], line
        assert cells[3], line
