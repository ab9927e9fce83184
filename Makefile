# The two commands of a newcomer are `make run` and `make test`; each sets up a virtual environment here first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run test lint bench clean

run: $(VENV)/installed  ## search the U-Net's hyperparameters on 5,000 digits, in minutes
	$(BIN)/diffsearch run search_spaces/mnist_unet.yaml

test: $(VENV)/installed-test  ## every test, end-to-end ones included, on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed-test  ## style, types, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_floors.py

bench: $(VENV)/installed-test  ## speed, as ratios from one run
	$(BIN)/python -m benchmarks

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV); the first time takes some minutes."
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) --editable '.[test]'
	@touch $@

clean:  ## the environment, not the results
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
