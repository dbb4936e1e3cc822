"""Who may import whom: the model never sees a file or a tokenizer, the host side never sees jax."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FORBIDDEN = {
    "umit_jax": {"grain", "pydicom", "transformers", "torch", "data_pipelines", "configs", "launch", "tensorflow"},
    "data_pipelines": {
        "jax",
        "flax",
        "optax",
        "orbax",
        "torch",
        "transformers",
        "tensorflow",
        "configs",
        "launch",
        "pickle",
    },
    "configs": {"data_pipelines", "launch", "torch", "transformers"},
    "launch": {"torch", "transformers", "pickle"},
}


def imported(path: pathlib.Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_package_imports_nothing_beyond_its_boundary(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & FORBIDDEN[package], f"{path.relative_to(ROOT)} imports {roots & FORBIDDEN[package]}"


def test_host_side_imports_only_the_contract_of_the_device_side():
    allowed = {"umit_jax", "umit_jax.batch", "umit_jax.targets"}
    for path in sorted((ROOT / "data_pipelines").rglob("*.py")):
        used = {name for name in imported(path) if name.split(".")[0] == "umit_jax"}
        assert used <= allowed, f"{path.relative_to(ROOT)} imports {used - allowed}"


def test_only_convert_knows_hugging_face_weight_files():
    for path in sorted((ROOT / "umit_jax").rglob("*.py")):
        if path.parent.name != "convert":
            assert "safetensors" not in {name.split(".")[0] for name in imported(path)}, path


def test_help_answers_without_loading_jax_or_the_data_libraries():
    code = (
        "import sys; from launch.cli import main; main(['--help']);"
        "heavy = {'jax', 'numpy', 'grain', 'pydicom', 'orbax', 'tensorflow_datasets'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "quickstart" in done.stdout
