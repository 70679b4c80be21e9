# `make` explains itself; `make demo` and `make test` set up everything they need.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
SPREAD := --numprocesses logical --maxprocesses 8 --dist worksteal --durations 10
PYTEST := $(BIN)/python -m pytest $(SPREAD) $(COVERAGE)

.PHONY: help demo test slow machines compat gpu rivals lint types contracts wheel docs site clean

# What computes in floating point, and is quick.
ROUNDED := tests/optim tests/models tests/fused/test_lane_state.py tests/fused/test_lane_update.py \
	tests/fused/test_averaging.py::test_weights_are_taken_in_as_the_average_of_a_model_takes_them \
	tests/fused/test_update_rules.py tests/fused/test_yellowfin.py tests/fused/test_coefficients.py \
	tests/fused/test_schedules.py tests/training/test_catalog.py tests/training/test_loop.py \
	tests/training/test_batches.py tests/training/test_weight_averaging.py \
	tests/training/test_own_loops.py

# The tests of what meets other libraries; they pass on the lowest versions that pyproject.toml allows.
CORE := tests/domain tests/search tests/store tests/optim tests/training tests/report tests/fused

help: ## Show this help
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: .venv/demo.stamp ## Tune eight optimizers on handwritten digits, and report
	$(BIN)/tuner run studies/digits.toml
	$(BIN)/tuner study report digits --format html --output digits.html

test: .venv/dev.stamp lint types contracts wheel site ## Check style, types, layers, wheel, site, and all but the slow tests
	$(PYTEST) -m 'not slow'

slow: .venv/dev.stamp ## Run the slow tests: several workers, Ray, the services of docker-compose.yml
	$(PYTEST) -m slow

machines: .venv/dev.stamp ## Run what computes as on a machine without vector instructions
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(PYTEST) -m 'not slow' $(ROUNDED)

compat: .venv-compat/stamp ## Run the core's tests on the lowest versions that pyproject.toml allows
	.venv-compat/bin/python -m pytest $(SPREAD) -m 'not slow' $(CORE)

rivals: .venv-rivals/stamp ## Make the environment of the libraries that tuner is compared with

gpu: ## Check and measure a CUDA device, where there is one; needs no environment but torch's
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) scripts/check-gpu

lint: .venv/dev.stamp ## Check style and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos

types: .venv/dev.stamp ## Check types
	$(BIN)/mypy

contracts: .venv/dev.stamp ## Check that each layer imports only downward
	$(BIN)/lint-imports

wheel: .venv/dev.stamp ## Build the wheel and run it in a bare environment outside the checkout
	PYTHON=$(PYTHON) BIN=$(CURDIR)/$(BIN) scripts/check-wheel

docs: .venv/dev.stamp ## Write the catalog's page and pictures
	$(BIN)/python scripts/write-catalog

site: .venv/dev.stamp ## Build the site of the documentation into site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict  # with --quiet it counts no warnings

clean: ## Remove the environment and what tools left behind
	rm -rf .venv .venv-compat .venv-rivals .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist site

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

.venv/dev.stamp: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	@touch $@ .venv/demo.stamp

.venv-compat/stamp: pyproject.toml constraints.txt scripts/lowest-versions
	$(PYTHON) -m venv .venv-compat
	scripts/lowest-versions > .venv-compat/lowest.txt
	.venv-compat/bin/pip install --quiet --disable-pip-version-check --editable . \
		--requirement .venv-compat/lowest.txt
	@touch $@

.venv-rivals/stamp: pyproject.toml benchmarks/rivals/requirements.txt
	$(PYTHON) -m venv .venv-rivals
	.venv-rivals/bin/pip install --quiet --disable-pip-version-check --editable . \
		--requirement benchmarks/rivals/requirements.txt
	@touch $@
