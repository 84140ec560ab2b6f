# Everything runs in .venv, which is made on first use and made anew when the dependencies change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RUN_STAMP := $(VENV)/.run
DEV_STAMP := $(VENV)/.dev
DOCS_STAMP := $(VENV)/.docs
WORKERS ?= 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test lint format types docs bench train-small build clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: $(RUN_STAMP)  ## label a small synthetic hospital and show the summary
	$(BIN)/reportlabel demo

test: $(DEV_STAMP)  ## run the whole test suite
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

lint: $(DEV_STAMP)  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEV_STAMP)  ## put style right where a tool can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEV_STAMP)  ## check types
	$(BIN)/mypy

docs: $(DOCS_STAMP)  ## build the documentation into site/
	$(BIN)/mkdocs build --strict

bench: $(RUN_STAMP)  ## measure speed and memory
	$(BIN)/reportlabel bench

train-small: $(DEV_STAMP)  ## train a small sentence classifier from nothing
	$(BIN)/reportlabel train --recipe small --out build/ja_findings_tiny

build: $(DEV_STAMP)  ## build the wheel and the source distribution into dist/
	$(BIN)/python -m build

clean:  ## remove the environment and everything built
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("reportlabel needs Python 3.11 or newer; run make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable .
	@touch $@

$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable '.[dev]'
	$(PIP_INSTALL) --no-deps crowd-kit
	@touch $@ $(RUN_STAMP)

$(DOCS_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable '.[docs]'
	@touch $@
