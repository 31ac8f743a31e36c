# `make` without a target lists the targets. Everything runs in .venv, which `setup` creates and keeps up to date.
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

setup: $(VENV)/installed ## create the virtual environment and install the package into it

run: setup ## train and test VT-ResNet-18 on the embedded handwritten digits
	$(BIN)/python -m visual_transformers

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --dist=worksteal
test: setup ## run the test suite without its slow part
	$(PYTEST)

test-all: test ## run the test suite with its slow part
	$(PYTEST) -m slow

RESOLUTION ?= lowest-direct
test-versions: ## run a part of the test suite with the oldest versions that setup.cfg allows (RESOLUTION=highest: the newest)
	$(PYTHON) -m pip install --quiet uv
	uv venv --quiet --python $(PYTHON) .venv-$(RESOLUTION)
	uv pip install --quiet --python .venv-$(RESOLUTION) --resolution $(RESOLUTION) --editable '.[dev]'
	OMP_NUM_THREADS=1 .venv-$(RESOLUTION)/bin/python -m pytest --numprocesses=auto --dist=worksteal \
		tests/models tests/tasks tests/config tests/training tests/modes/test_export.py tests/cli/test_sweeps.py

SECONDS ?= 600
fuzz: setup ## try random files, names and settings for 600 s (SECONDS=600): each must be read, or refused with a clear message
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.support.fuzz --seconds $(SECONDS)

RECORD ?=
test-defaults: setup ## train every model with its defaults, and require a minimum score of each (hours; RECORD=--record)
	$(BIN)/python -m tests.support.defaults $(RECORD)

KILLS ?= 20
test-kill: setup ## kill a training run 20 times (KILLS=20), and compare it with an uninterrupted one
	$(BIN)/python -m tests.support.killing --kills $(KILLS)

test-devices: setup ## compare two devices with one on photographs (DATA=PATH with the folders train and val)
	$(BIN)/python -m tests.support.devices $(DATA)

SELECT ?=
test-cluster: setup ## test sweeps on a real SLURM cluster, which it sets up (Debian, as root; SELECT="array or preempted")
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster -k "$(SELECT)" tests/cluster

check: setup ## check lint, format, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup ## write docs/configuration.md from conf/ and the signatures behind it
	$(BIN)/python -m tests.support.configuration_page

bench: setup ## run the benchmarks of benchmarks/README.md
	$(BIN)/python benchmarks/reassociation.py
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/index_memory.py
	$(BIN)/python benchmarks/report.py

clean: ## remove the virtual environment, caches and build products; runs/ and sweeps/ stay
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
