# Everything starts here: `make demo` and `make test` work on a machine where nothing of ours is installed.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.drivesim-installed
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
# Extra arguments of pip, e.g. PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" for the small torch.
PIP_ARGS ?=
WORKERS ?= 2
SEEDS ?= 1
RUN ?= runs/demo
RECIPE ?= nano-v5
TESTS ?= tests

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench lint train clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 10
	@echo "variables: SEEDS=$(SEEDS) WORKERS=$(WORKERS) RUN=$(RUN) RECIPE=$(RECIPE) TESTS=$(TESTS) PYTHON=$(PYTHON)"

setup: $(STAMP)  ## make .venv with pinned packages and fetch CARLA's towns; nothing to do when up to date

$(STAMP): pyproject.toml constraints.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
		|| { echo "drivesim needs Python 3.11 or 3.12 (carla 0.9.16 has wheels for them): make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing pinned packages into $(VENV) (minutes, the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) --editable '.[dev]'
	$(BIN)/drivesim towns install
	@touch $@

demo: setup  ## drive four planners through the demo suite, print the scorecard, write report.html
	$(BIN)/drivesim evaluate --suite demo --planner latent --planner behaviour-cloning --planner constant-velocity \
		--planner expert --seeds $(SEEDS) --workers $(WORKERS) --out $(RUN)

test: setup  ## every test, in WORKERS processes
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(TESTS)

bench: setup  ## speeds side by side, into bench.json
	$(BIN)/python -m eval.speed --out bench.json

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

train: setup  ## train a recipe (RECIPE=nano-v5: two CPU cores; RECIPE=full: one GPU)
	$(BIN)/drivesim train $(RECIPE)

clean:  ## remove the environment and caches, keep runs/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
