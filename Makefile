# Two commands on a fresh machine: `make demo` shows Unmask at work, `make test` runs every test that needs no GPU.
# Everything is installed into .venv; the default models go into the user's cache folder, verified by sha256.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check

.PHONY: demo test check setup setup-dev models format clean

demo: $(VENV)/.engine
	$(BIN)/unmask demo

test: $(VENV)/.dev check
	$(BIN)/unmask pull qwen2.5-coder-0.5b
	$(BIN)/python tests/helpers/run_suite.py -n 2 --dist loadfile

# What needs no model: style, types, import rules.
check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(VENV)/.engine

setup-dev: $(VENV)/.dev

models: $(VENV)/.engine
	$(BIN)/unmask pull qwen2.5-coder-0.5b
	$(BIN)/unmask pull qwen2.5-coder-1.5b

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.engine: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[engine]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.engine

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
