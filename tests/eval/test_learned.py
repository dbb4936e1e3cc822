"""What the packages of learned report metrics are given, and what is made of their answers; a stand-in is the model."""

import pytest

from umit_jax.eval.metrics import Item, learned
from umit_jax.eval.modes import ModeError, check_modes
from umit_jax.eval.score import score
from umit_jax.targets import text_target

PACKAGES = {
    "f1chexbert": """
class F1CheXbert:
    def get_label(self, report):
        return [int(word in report) for word in "abcdefghijklmn"]
""",
    "radgraph": """
class F1RadGraph:
    def __init__(self, reward_level, model_type):
        assert (reward_level, model_type) == ("all", "radgraph-xl")
    def __call__(self, refs, hyps):
        rows = [[float(len(r) == 2) for r in refs], [float(h == "") for h in hyps], [0.25 for _ in refs]]
        return None, rows, None, None
""",
    "green_score": """
class GREEN:
    def __init__(self, name, output_dir):
        assert name == "StanfordAIMI/GREEN-radllama2-7b"
    def __call__(self, refs, hyps):
        return 0, 0, [float(r == "ab" and h == "b") for r, h in zip(refs, hyps)], "", None
""",
}


@pytest.fixture
def packages(tmp_path, monkeypatch):
    for name, text in PACKAGES.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    for load in (learned._chexbert, learned._radgraph, learned._green):
        load.cache_clear()
    yield
    for load in (learned._chexbert, learned._radgraph, learned._green):
        load.cache_clear()


def items(language="en"):
    return [Item(text_target("ab"), text_target("b"), language), Item(text_target("abc"), None, language)]


def test_each_package_gets_truths_and_answers_in_its_own_order(packages):
    # labels a, b true and b said; a, b, c true and nothing said: 1 hit of 5 true and 1 said
    chexbert = learned.chexbert(items())
    assert chexbert["f1_micro"].point == pytest.approx(2 / 6)
    assert chexbert["f1_macro"].point == pytest.approx((2 / 3) / 14)
    assert chexbert["f1_micro_5"].point == pytest.approx(2 / 3)  # b is the second of the 14, Cardiomegaly
    radgraph = {name: statistic.point for name, statistic in learned.radgraph(items()).items()}
    assert radgraph == {"radgraph_simple": 0.5, "radgraph_partial": 0.5, "radgraph_complete": 0.25}
    assert learned.green(items())["green"].point == 0.5


def test_reports_in_another_language_are_not_handed_over(packages):
    assert (learned.chexbert(items("zh")), learned.radgraph(items("zh")), learned.green(items("zh"))) == ({}, {}, {})


def test_a_mode_has_its_rows_where_its_package_is_installed_and_is_refused_elsewhere(packages):
    line = {"id": "0", "task": "report", "dataset": "d", "language": "en", "text": "b", "truth": text_target("ab")}
    rows = [row for row in score([line], modes=["green"]).rows if row["mode"] == "green"]
    assert [(row["metric"], row["value"]) for row in rows] == [("green", 1)]


def test_a_mode_without_its_package_is_refused_by_the_name_of_the_package(monkeypatch):
    monkeypatch.setattr(learned.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModeError, match="mode: radgraph cannot be computed here: needs the package radgraph"):
        check_modes(["radgraph"])
    assert not learned.available("radgraph")
