# One environment for each use: .venv runs the product (no torch), .venv-test adds what the tests compare against.
PYTHON ?= python3
VENV ?= .venv
TEST_VENV ?= .venv-test
# torch is installed where it has a CPU build; elsewhere the tests that need it skip, counted.
TEST_EXTRAS := $(shell $(PYTHON) -c 'import sys; print("test,dev,export" if sys.version_info[:2] == (3, 11) else "test,dev")')
export JAX_PLATFORMS ?= cpu

.PHONY: quickstart install test slow check clean

install: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --editable .
	touch $@

$(TEST_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(TEST_VENV)
	$(TEST_VENV)/bin/pip install --quiet --editable '.[$(TEST_EXTRAS)]'
	touch $@

quickstart: $(VENV)/.installed
	$(VENV)/bin/umit quickstart

test: $(TEST_VENV)/.installed
	$(TEST_VENV)/bin/python -m pytest -n 2 --dist loadgroup -m "not slow" --durations=15

slow: $(TEST_VENV)/.installed
	$(TEST_VENV)/bin/python -m pytest -m slow --durations=15

check: $(TEST_VENV)/.installed
	$(TEST_VENV)/bin/ruff check .
	$(TEST_VENV)/bin/ruff format --check .
	$(TEST_VENV)/bin/pyright
	$(TEST_VENV)/bin/python -m pytest -q tests/test_boundaries.py

clean:
	rm -rf $(VENV) $(TEST_VENV) build *.egg-info
