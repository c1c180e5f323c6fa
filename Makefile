# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
# Only Python >= 3.11 and make are taken for granted; PYTHON=python3.12 chooses another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: quickstart test lint types tests test-slow test-gpu ui clean help

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*##/ /'

quickstart: $(READY)  ## set up, run experiments/quickstart.yaml, write its report
	HF_HUB_OFFLINE=1 $(BIN)/harness run experiments/quickstart.yaml

test: lint types tests  ## lint, types, tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

tests: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 10

test-slow: $(READY)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

test-gpu: $(READY)  ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

ui: $(READY)  ## MLflow on the ledger, on this machine only
	$(BIN)/harness ui

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else f"Python 3.11 to 3.13 is needed, found {sys.version.split()[0]}; try PYTHON=python3.12 make")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[offline,dev]'
	@touch $@

clean:           ## remove the virtual environment and caches; results and the ledger stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
