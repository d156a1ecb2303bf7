# Every target makes .venv itself, from pyproject.toml, and adds the extras that it needs. Both are done again when they
# are older than that file.
.DEFAULT_GOAL := help
.PHONY: help demo app docs test test-slow test-minimum gpu-check quality format wheel clean

SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# pip, and not uv: it takes torch and torchvision as the pair that pyproject names.
INSTALL := -m pip install --quiet --disable-pip-version-check
CORE := $(VENV)/.installed-core
DEMO := runs/demo

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(CORE): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) --editable .
	touch $@

.PRECIOUS: $(VENV)/.installed-%
$(VENV)/.installed-%: $(CORE)
	$(BIN)/python $(INSTALL) --editable '.[$*]'
	touch $@

demo: $(CORE) ## Synthetic data, both training stages, evaluation, prediction: everything once, in runs/demo
	$(BIN)/echomen demo --output $(DEMO)

app: $(VENV)/.installed-app ## Serve the web page with the small model that comes with the package
	$(BIN)/echomen app

docs: $(VENV)/.installed-docs ## Build the documentation in site/
	$(BIN)/mkdocs build --strict

test: $(VENV)/.installed-test ## Run the tests, without the slow ones
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(VENV)/.installed-test ## Run the slow tests
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 -m slow

test-minimum: ## Run the tests with the oldest versions that pyproject.toml allows, in .venv-minimum
	test -x .venv-minimum/bin/python || $(PYTHON) -m venv .venv-minimum
	.venv-minimum/bin/python scripts/minimum_versions.py pyproject.toml > .venv-minimum/constraints.txt
	.venv-minimum/bin/python $(INSTALL) --constraint .venv-minimum/constraints.txt --editable '.[test]'
	HF_HUB_OFFLINE=1 .venv-minimum/bin/python -m pytest -n 2 -m "not slow"

gpu-check: $(VENV)/.installed-app ## Check everything that depends on a GPU, in 8 minutes on one; results in runs/gpu_check.json
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.gpu_check --output runs/gpu_check.json

quality: $(VENV)/.installed-dev ## Lint, check the format, the spelling and the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	$(BIN)/mypy

format: $(VENV)/.installed-dev ## Format the code and apply what lint can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(CORE) ## Build the package in dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## Remove what the other targets made
	rm -rf $(VENV) .venv-minimum $(DEMO) site build dist .pytest_cache .ruff_cache .mypy_cache
