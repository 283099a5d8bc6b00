# Every target makes what it needs: a fresh clone with python3 and make is enough.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# PyTorch and BLAS pick one thread per core; on a shared machine that is a good default.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

.PHONY: help demo test lint doctest docs bench wheel clean

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# One stamp per set of extras, remade when the pins or the project's metadata change.
$(VENV)/.installed-all: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing layerpeel (once; a few minutes) ..."
	@$(INSTALL) -e '.[all]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing layerpeel with its development tools (once; a few minutes) ..."
	@$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed-all

demo: $(VENV)/.installed-all ## train, diagnose, oversample, compare: an HTML report in layerpeel-demo/
	@$(BIN)/layerpeel demo --out layerpeel-demo

test: $(VENV)/.installed-dev ## run the tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist worksteal

lint: $(VENV)/.installed-dev ## check style, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

doctest: $(VENV)/.installed-dev ## run the examples in docstrings and guides
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist worksteal --doctest-modules --doctest-glob='*.md' src docs

docs: $(VENV)/.installed-dev ## build the documentation into docs/_build/html; warnings are errors
	@$(BIN)/python -m sphinx -q -W --keep-going -n -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(VENV)/.installed-dev ## run the benchmarks; each prints a ratio
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script $(BENCH) || exit 1; done

wheel: $(VENV)/.installed-dev ## build the wheel and import it in a clean environment
	@rm -rf dist && $(BIN)/python -m build --wheel --no-isolation -o dist .
	@rm -rf dist/clean && $(PYTHON) -m venv dist/clean
	@dist/clean/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt dist/*.whl
	@cd dist && clean/bin/python -c "import layerpeel as lp; lp.collapse_threshold(majority=5, minority=5, energy=(1, 5))"

clean: ## remove what the other targets made, except the environment
	@rm -rf dist docs/_build layerpeel-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
