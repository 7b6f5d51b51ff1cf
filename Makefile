# Each target sets up what it needs, so any of them can be the first command in a fresh clone.
# Another Python: make test PYTHON=python3.12 VENV=.venv-3.12

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

# The environment remembers which PYTHON made it; asked for another one, it is made anew.
environment := $(VENV)/.made-by-$(subst /,-,$(PYTHON))
python := $(VENV)/bin/python
bare := build/wheel/venv

.PHONY: help demo test check lint types import-rule wheel bench docs notebooks

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'Variables: PYTHON=$(PYTHON) VENV=$(VENV) ARGS= (passed on by demo, test, bench and notebooks)'

demo: $(VENV)/.extra-cli  ## Run the demonstration: tlsnode demo
	$(VENV)/bin/tlsnode demo $(ARGS)

test: $(VENV)/.extra-test  ## Run all tests; ARGS="-k name" selects
	$(python) -m pytest -n auto $(ARGS)

check: lint types import-rule wheel  ## Run everything that judges the code without the tests

lint: $(VENV)/.extra-check  ## Check style and format with ruff
	$(python) -m ruff check .
	$(python) -m ruff format --check .

types: $(VENV)/.extra-check  ## Check types with mypy --strict
	$(python) -m mypy

import-rule: $(VENV)/.extra-check  ## Check who imports whom, against docs/design.md
	$(python) -m pytest -q tests/test_import_rule.py

wheel: $(VENV)/.extra-check  ## Build the package and import it from a bare environment
	rm -rf build/wheel
	$(python) -m build --outdir build/wheel . >/dev/null
	$(PYTHON) -m venv $(bare)
	$(bare)/bin/python -m pip install --quiet build/wheel/*.whl
	$(bare)/bin/python -m pip check
	cd / && '$(CURDIR)/$(bare)/bin/python' -I -W error \
	    -c 'from trio_tlsnode import *; import trio_tlsnode; print("trio_tlsnode", trio_tlsnode.__version__)'

bench: $(VENV)/.extra-benchmarks  ## Run the benchmarks; ARGS are the runner's
	$(python) -m benchmarks $(ARGS)

docs: $(VENV)/.extra-docs  ## Build the documentation into docs/_build/html
	$(python) -m sphinx -q -W --keep-going -b html docs docs/_build/html

notebooks: $(VENV)/.extra-notebooks  ## Run the notebooks, into build/notebooks; ARGS are names of some
	$(python) notebooks/run.py $(ARGS)

$(environment):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo '$(PYTHON) is not Python 3.11 or newer: name one, as in "make test PYTHON=python3.12".' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo '$(PYTHON) cannot make virtual environments: on Debian and Ubuntu, install python3-venv.' >&2; exit 1; }
	$(PYTHON) -m venv $(if $(wildcard $(VENV)/pyvenv.cfg),--clear )$(VENV)
	$(python) -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.extra-%: $(environment) pyproject.toml trio_tlsnode/_version.py
	$(python) -m pip install --quiet --editable '.[$*]'
	@touch $@
