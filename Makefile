# `make` alone lists the targets. Everything runs in .venv, which `setup` makes and keeps up to date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup run test test-all test-versions fuzz test-defaults test-kill test-devices test-cluster check docs bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

CONSTRAINTS ?=
$(VENV)/installed: setup.cfg setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(CONSTRAINTS:%=--constraint %) --editable '.[dev]'
	@touch $@

setup: $(VENV)/installed ## make the virtual environment and install the package into it

run: setup ## train and test VT-ResNet-18 on the embedded handwritten digits
	$(BIN)/python -m visual_transformers

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --dist=worksteal
test: setup ## the test suite without its slow part
	$(PYTEST)

test-all: test ## the test suite with its slow part (what CI runs)
	$(PYTEST) -m slow

RESOLUTION ?= lowest-direct
test-versions: ## a part of the test suite on the oldest versions that setup.cfg allows (RESOLUTION=highest: the newest)
	$(PYTHON) -m pip install --quiet uv
	uv venv --quiet --python $(PYTHON) .venv-$(RESOLUTION)
	uv pip install --quiet --python .venv-$(RESOLUTION) --resolution $(RESOLUTION) --editable '.[dev]'
	OMP_NUM_THREADS=1 .venv-$(RESOLUTION)/bin/python -m pytest --numprocesses=auto --dist=worksteal \
		tests/models tests/tasks tests/config tests/training tests/modes/test_export.py tests/cli/test_sweeps.py

SECONDS ?= 600
fuzz: setup ## files, names and settings at random for 600 s (SECONDS=600), each read or refused in a sentence
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.support.fuzz --seconds $(SECONDS)

RECORD ?=
test-defaults: setup ## train every model with its defaults, compare scores with floors (hours; RECORD=--record)
	$(BIN)/python -m tests.support.defaults $(RECORD)

KILLS ?= 20
test-kill: setup ## kill a training 20 times (KILLS=20) and compare it with an uninterrupted one
	$(BIN)/python -m tests.support.killing --kills $(KILLS)

test-devices: setup ## compare two devices with one on images (DATA=PATH, with train and val)
	$(BIN)/python -m tests.support.devices $(DATA)

SELECT ?=
test-cluster: setup ## sweeps on a real SLURM cluster, set up on Debian as root (SELECT="array or preempted")
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster -k "$(SELECT)" tests/cluster

check: setup ## lint, format, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup ## write docs/configuration.md from conf/ and the signatures behind it
	$(BIN)/python -m tests.support.configuration_page

bench: setup ## performance comparisons, each in one run
	$(BIN)/python benchmarks/reassociation.py
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/index_memory.py
	$(BIN)/python benchmarks/report.py

clean: ## remove the virtual environment, caches and build products; runs/ and sweeps/ stay
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
