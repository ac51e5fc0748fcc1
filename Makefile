# Each target sets up what it needs in a fresh clone: a virtual environment in .venv, then everything in it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-hosts clean

demo: .venv/installed
	$(BIN)/visionr1 demo

test: .venv/installed
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pytest

# The reward inside TRL, verl, ms-swift, EasyR1 and OpenRLHF, each in its own environment: minutes and about 10 GB.
test-hosts: .venv/installed
	$(BIN)/python tests/hosts/real/run.py

# torch comes first and alone, so that the index in use decides its build (CPU or CUDA), not a dependency of another package.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "visionr1 needs Python 3.11 or later; say: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
