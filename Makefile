# Set-up and everyday commands. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow lint format examples benchmark clean distclean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

demo: $(VENV)/.demo  ## simulate, super-resolve and report on the embedded template: demo-out/report.html
	$(BIN)/mrkit demo --out demo-out --force

test: $(VENV)/.test  ## run the default tests (under 10 minutes on 2 cores)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-slow: $(VENV)/.test  ## run the tests that take minutes, on the real scans in ../shared/data
	$(BIN)/python -m pytest -m slow

examples: $(VENV)/.test  ## run every script in examples/
	$(BIN)/python -m pytest -m example

benchmark: $(VENV)/.test  ## run one benchmark: make benchmark NAME=superresolution
	@test -n "$(NAME)" || { echo "say which: make benchmark NAME=superresolution"; exit 2; }
	$(BIN)/python benchmarks/run.py $(NAME)

lint: $(VENV)/.lint  ## style, spelling, import contracts, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/.lint  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what the commands made, except the environment
	rm -rf demo-out dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache benchmarks/results/work
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## remove the environment too
	rm -rf $(VENV)

# One stamp per set of extras: nothing is installed again until pyproject.toml or constraints.txt change.
$(VENV)/.demo $(VENV)/.test $(VENV)/.lint: $(VENV)/.%: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing mrkit[$*] into $(VENV) (the first time brings PyTorch: a minute or more)"
	$(PIP) --editable ".[$*]"
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mrkit needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
