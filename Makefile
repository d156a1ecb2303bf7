# Every target makes .venv itself, from pyproject.toml, when it is missing or older than that file.
.DEFAULT_GOAL := help
.PHONY: help demo app docs test test-slow test-minimum quality format clean

SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := runs/demo

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# pip, and not uv: it takes torch and torchvision as the pair that pyproject names.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(STAMP) ## Synthetic data, both training stages, evaluation, prediction: everything once, in runs/demo
	$(BIN)/python scripts/demo.py --output $(DEMO)

app: $(STAMP) ## Serve the web page with the small model that comes with the package
	$(BIN)/python scripts/app.py

docs: $(STAMP) ## Build the documentation in site/
	$(BIN)/mkdocs build --strict

test: $(STAMP) ## Run the tests, without the slow ones
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(STAMP) ## Run the slow tests
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 -m slow

test-minimum: ## Run the tests with the oldest versions that pyproject.toml allows, in .venv-minimum
	test -x .venv-minimum/bin/python || $(PYTHON) -m venv .venv-minimum
	.venv-minimum/bin/python scripts/minimum_versions.py pyproject.toml > .venv-minimum/constraints.txt
	.venv-minimum/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint .venv-minimum/constraints.txt --editable '.[test]'
	HF_HUB_OFFLINE=1 .venv-minimum/bin/python -m pytest -n 2 -m "not slow"

quality: $(STAMP) ## Lint, check the format and the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## Format the code and apply what lint can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove what the other targets made
	rm -rf $(VENV) .venv-minimum $(DEMO) site build dist .pytest_cache .ruff_cache .mypy_cache
