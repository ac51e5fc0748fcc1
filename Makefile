# Each target sets up what it needs in a fresh clone: a virtual environment in .venv, then everything in it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-integrations test-deepspeed clean

demo: .venv/installed
	$(BIN)/visionr1 demo

test: .venv/installed
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pytest

# The reward inside TRL, verl, ms-swift, EasyR1 and OpenRLHF, each in its own environment: minutes and about 10 GB.
test-integrations: .venv/installed
	$(BIN)/python tests/integrations/real/run.py

# ZeRO-2, which `make test` skips, in an environment with DeepSpeed: two CPU processes against one.
test-deepspeed: .venv-deepspeed/installed
	.venv-deepspeed/bin/python -c 'import deepspeed'
	.venv-deepspeed/bin/pytest tests/training/test_distributed.py -k zero

.venv/installed: EXTRAS := dev
.venv-deepspeed/installed: EXTRAS := dev,deepspeed

# torch comes first and alone, so that the index in use decides its build (CPU or CUDA), not a dependency of another package.
.venv/installed .venv-deepspeed/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "visionr1 needs Python 3.11 or later; say: make PYTHON=python3.12")'
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(@D)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf .venv .venv-deepspeed build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
