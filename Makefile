# Everything here works on a fresh clone with Python 3.11+, git and make.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# The tests start many processes: without bytecode, all of them would compile torch again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help venv page demo test lint types check nano docs clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(STAMP)  ## Create .venv with everything needed

# torch goes first: a plain install would let pip choose the newest torch, with gigabytes of CUDA.
# torchvision goes without its dependencies because its wheel asks for one exact build of torch.
# Compiling all of it to bytecode takes four times as long as installing; Python does what it needs.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt --no-deps torchvision
	$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev]'
	touch $@

page: venv  ## Build the page of the map again if its sources have changed
	$(BIN)/python hatch_build.py

demo: venv  ## Run the whole benchmark offline on the synthetic planet
	$(BIN)/marsretrieval demo --out demo

test: venv page lint types  ## Lint, type-check and run all fast tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv
	$(BIN)/mypy

nano: venv  ## Train the demo's tiny encoder again from its recipe
	$(BIN)/python scripts/train_mars_nano.py

docs: venv  ## Build the documentation site into site/
	$(BIN)/sphinx-build -W --keep-going -q -b html -c docs . site

clean:  ## Remove .venv and caches
	rm -rf .venv site .pytest_cache .mypy_cache .ruff_cache
