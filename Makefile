# Everything runs in .venv, built from the exact versions in constraints.txt.
# A repeat starts at once: the stamp is written last, so an interrupted install leaves none.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

# One line, whatever is wrong: no such interpreter, or one that is too old.
FOUND = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2] + ("" if sys.version_info >= (3, 12) else " is too old"))' 2>/dev/null)
CHECK_PYTHON = $(if $(and $(FOUND),$(if $(findstring old,$(FOUND)),,ok)),,\
  $(error deq_jax needs Python 3.12 or newer, but $(PYTHON) is $(if $(FOUND),$(firstword $(FOUND)),not there); name one with: make PYTHON=python3.12))

.PHONY: help setup train test bench results clean

help:
	@echo 'make train   set up, then train on the digits that ship with scikit-learn'
	@echo 'make test    set up, then run every check: format, lint, types, tests'
	@echo 'make bench   set up the peers too, then time a training step side by side; options in ARGS'
	@echo 'make results write RESULTS.md from the finished runs below runs/'
	@echo 'make setup   only set up $(VENV) from the pinned versions'
	@echo 'make clean   remove $(VENV) and every cache; runs are kept'
	@echo 'PYTHON=...   the interpreter to build from, 3.12 or newer (now: $(PYTHON))'

setup: $(STAMP)

train: $(STAMP)
	$(BIN)/python train.py digits

test: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n $(WORKERS)

bench: $(STAMP)
	$(BIN)/python -m benchmarks.training $(ARGS)

results: $(STAMP)
	$(BIN)/python -m benchmarks.report

$(STAMP): pyproject.toml constraints.txt
	$(CHECK_PYTHON)@test -e $(STAMP) || $(PYTHON) -m venv --clear $(VENV)
	@rm -f $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --build-constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) .bench build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
