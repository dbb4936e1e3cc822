"""docs/add_a_model.md is true to the code: what it names exists, and adding a family takes what it says."""

import ast
import pathlib
import re

import pytest

from launch import cli
from umit_jax.model import families

ROOT = pathlib.Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "add_a_model.md").read_text(encoding="utf-8")
QUOTED = sorted(set(re.findall(r"`([^`\n]+)`", TEXT)))
FILES = [q for q in QUOTED if "/" in q]
COMMANDS = [q for q in QUOTED if q.startswith("umit ")]


def defined(path: pathlib.Path) -> set[str]:
    """Names a module defines at its top, and Class.name of what its classes define."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


@pytest.mark.parametrize("quoted", FILES)
def test_every_file_and_name_exists(quoted):
    path, _, name = quoted.partition("::")
    assert (ROOT / path).is_file(), f"docs/add_a_model.md names {path}, which does not exist"
    assert not name or name in defined(ROOT / path), f"docs/add_a_model.md: {path} defines no {name}"


def test_the_document_names_files_commands_and_fields_that_are_checked():
    assert len(FILES) > 25
    assert COMMANDS
    assert {command.split()[1] for command in COMMANDS} <= set(cli.COMMANDS)
    for folder in re.findall(r"^    pytest (\S+)$", TEXT, re.MULTILINE):
        assert (ROOT / folder).is_dir()


def test_the_table_of_host_numbers_is_that_of_processing():
    from data_pipelines.image import Processing

    rows = re.findall(r"^\| (\w+) +\| `data_pipelines", TEXT, re.MULTILINE)
    assert rows == ["window", "tokens_per_second", "boxes"]
    assert set(rows) <= set(Processing().to_json())


def test_no_family_is_named_outside_its_own_files():
    """A branch on the family needs its name; the registry, the towers' config forms and the default may say it."""
    own = {f"umit_jax/model/{name}.py" for name in ("families", "config", "vision", "vision_2_5")}
    for package in ("umit_jax", "launch", "data_pipelines"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if str(path.relative_to(ROOT)) in own:
                continue
            constants = {
                n.value for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Constant)
            }
            assert not constants & set(families.FAMILIES), f"{path.relative_to(ROOT)} looks at the family"
