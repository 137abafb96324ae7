# `make demo` does the main job on real images, `make test` runs every test; both build .venv first, from pinned versions.

PYTHON ?= python3
DEMO_MINUTES ?= 5
WORKERS ?= auto

VENV := .venv
BIN := $(VENV)/bin
# The oldest versions that pyproject.toml allows, each in an environment of its own.
FLOOR := .venv-floor
BARE := .venv-bare
PIP_INSTALL := -m pip install --disable-pip-version-check --quiet
# Tests run beside each other: one thread each (tests/conftest.py), and at most 8 processes, each with networks in memory.
PYTEST := -m pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: busy gpu help setup demo test floor wheel sbom docs notebooks pictures soak check bench golden lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.dev ## an environment with everything the tests and checks need

demo: $(VENV)/.demo ## train, evaluate, predict and report on 2,624 solar cells; DEMO_MINUTES bounds the training
	$(BIN)/python examples/solar_cells.py --minutes $(DEMO_MINUTES)

test: $(VENV)/.dev ## every test but the soak, with coverage (at least 90 %); about twenty minutes on two cores
	$(BIN)/python $(PYTEST) --cov --cov-report term --cov-fail-under 90

floor: $(FLOOR)/.ready ## the same tests on the oldest versions that pyproject.toml allows, without torchvision and timm
	REINCEPTION_FLOOR=1 $(FLOOR)/bin/python $(PYTEST)

wheel: $(VENV)/.dev ## build the wheel, install it without extras in a bare environment, use it there
	rm -rf dist $(BARE)
	$(BIN)/python -m build --no-isolation --outdir dist . >/dev/null
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv $(BARE)
	$(BARE)/bin/python $(PIP_INSTALL) --constraint requirements.floor dist/*.whl
	$(BARE)/bin/python tests/project/bare_install.py README.md

sbom: wheel ## what a bare installation consists of, with licences, as CycloneDX: dist/sbom.json
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible -o dist/sbom.json $(BARE)/bin/python

docs: $(VENV)/.dev ## the site: build/site/html/index.html, which opens offline; a minute on two cores
	$(BIN)/python docs/site/build.py

notebooks: $(VENV)/.dev ## write the notebooks of docs/notebooks anew from the scripts in examples/paper
	$(BIN)/python docs/site/notebooks.py

pictures: $(VENV)/.dev ## renew the screenshots of docs/images from real runs on drawn images; forty minutes on two cores
	$(BIN)/python docs/site/pictures.py

soak: $(VENV)/.dev ## a hundred kills, fifty signals, a thousand damaged checkpoints; about an hour on two cores
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.dev ## format, lint, types, import rules, spelling, golden files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell *.md docs src examples benchmarks tests deploy
	$(BIN)/python -m pytest -q -k 'golden or conventions' tests

gpu: $(VENV)/.demo ## all that a GPU must prove, then its images per second; under nine minutes
	$(BIN)/python benchmarks/gpu.py

busy: $(VENV)/.demo ## training on a busy machine: images per second idle, and beside four busy threads; five minutes
	$(BIN)/python benchmarks/busy.py

bench: $(VENV)/.dev ## images per second beside other libraries, each at its best setting; a quarter of an hour
	$(BIN)/reinception bench

golden: $(VENV)/.dev ## write the golden files anew, and README's table; read the diff before you commit it
	REINCEPTION_WRITE_GOLDEN=1 $(BIN)/python -m pytest -q -k golden tests

lock: ## pin anew what a fresh environment resolves to; what serves one kind of accelerator only is left to pip
	$(PYTHON) -m venv --clear .venv-lock
	.venv-lock/bin/python $(PIP_INSTALL) '.[dev]'
	.venv-lock/bin/python -m pip list --format=freeze --exclude reinception --exclude pip \
		| grep -vE '^(cuda|nvidia|triton==)' | sed 's/+cpu$$//' > requirements.lock
	rm -rf .venv-lock

clean: ## remove the environments and the caches; runs stay
	rm -rf $(VENV) $(FLOOR) $(BARE) .venv-lock dist .coverage .coverage.* .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'reinception needs Python 3.11 or newer: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo 'this Python cannot make environments: apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml requirements.lock
	$(BIN)/python $(PIP_INSTALL) --constraint requirements.lock --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python $(PIP_INSTALL) --constraint requirements.lock --editable '.[dev]'
	@touch $@

$(FLOOR)/.ready: pyproject.toml requirements.floor
	$(PYTHON) -m venv --clear $(FLOOR)
	$(FLOOR)/bin/python $(PIP_INSTALL) --constraint requirements.floor --editable '.[check,convert,demo,fast,parquet,remote,serve,test]'
	@touch $@
