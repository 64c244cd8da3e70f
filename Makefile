# Everything runs in .venv, built from the exact versions in constraints.txt.
# A repeat starts at once: the stamp is written last, so an interrupted install leaves none.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOWEST := .venv-lowest
# MkDocs's theme would print an advertisement for its successor. No --quiet: it silences the warnings that strict mode counts.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs
WORKERS ?= 2

# One line, whatever is wrong: no such interpreter, or one that is too old.
FOUND = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2] + ("" if sys.version_info >= (3, 12) else " is too old"))' 2>/dev/null)
CHECK_PYTHON = $(if $(and $(FOUND),$(if $(findstring old,$(FOUND)),,ok)),,\
  $(error deq_jax needs Python 3.12 or newer, but $(PYTHON) is $(if $(FOUND),$(firstword $(FOUND)),not there); name one with: make PYTHON=python3.12))

.PHONY: help setup train test test-long test-lowest docs notebooks package bench faults results clean

help:
	@echo 'make train   set up, then train on the digits that ship with scikit-learn'
	@echo 'make test    set up, then run the checks: format, lint, types, site, and each test of a few seconds'
	@echo 'make test-long  run the others: whole trainings, and the notebooks'
	@echo 'make docs    set up, then serve the documentation at http://127.0.0.1:8000'
	@echo 'make notebooks    run the notebooks, and store what they print and draw'
	@echo 'make test-lowest  run the tests with the lowest versions that pyproject.toml names'
	@echo 'make package      build what would be published into dist/, and check it'
	@echo 'make bench   set up the peers too, then time a training step side by side; options in ARGS'
	@echo 'make faults  make everything go wrong in real trainings, and print what they survive; options in ARGS'
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
	$(MKDOCS) build --site-dir build/site
	$(BIN)/pytest -n $(WORKERS) -m 'not long'

test-long: $(STAMP)
	$(BIN)/pytest -n $(WORKERS) -m long

docs: $(STAMP)
	$(MKDOCS) serve

notebooks: $(STAMP)
	$(BIN)/jupyter-nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False notebooks/*.ipynb
	$(BIN)/python notebooks/stamp.py

package: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --dependency-constraints-txt constraints.txt
	$(BIN)/twine check --strict dist/*

test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/pytest -n $(WORKERS)

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	$(CHECK_PYTHON)$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[test]'
	@touch $@

faults: $(STAMP)
	$(BIN)/python -m faults $(ARGS)

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
	rm -rf $(VENV) $(LOWEST) .bench build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
