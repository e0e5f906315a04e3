# One virtual environment, made on first use and again whenever pyproject.toml or constraints.txt change.
PYTHON ?= python3
VENV   ?= .venv
EXTRAS ?= dev
JOBS   ?= 2
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed-$(EXTRAS)
ROOMS   = $(patsubst %/__init__.py,%,$(wildcard robolearn/__init__.py sim/__init__.py policies/__init__.py \
          vlm_rewards/__init__.py real/__init__.py))

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format bench clean

help:     ## show these targets
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## make $(VENV) with the pinned dependencies (EXTRAS=dev,vlm,... chooses extras)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("robolearn needs Python 3.10 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 10) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "cannot make $(VENV): install the venv module of $(PYTHON) (Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: install ## train, evaluate, export and render dex_track on this machine's CPU
	$(BIN)/robolearn demo

test: lint ## everything the continuous integration checks
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

lint: install ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(ROOMS)

format: install ## rewrite the sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## speed of everything, against the bare engine, gymnasium and rsl_rl, as ratios; lines in bench.jsonl
	$(BIN)/robolearn bench all --out bench.jsonl
	$(BIN)/python benchmarks/ppo_vs_rsl_rl.py
	@test ! -x .venv-mjlab/bin/python || $(BIN)/python benchmarks/mjlab_peer.py

clean: ## remove the virtual environment and every cache (runs/ stays)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
