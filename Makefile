# Everything a developer needs, with python3 and make alone. `make help` lists it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup services demo dev test faults kill-matrix soak bench bench-million bench-docs bench-check bench-memory bench-warehouse docs screenshots check format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV), a minute or two the first time ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(STAMP) ## make .venv with the exact versions of constraints.txt

services: ## install what tests need beyond Python packages (Debian, as root)
	@{ ls /usr/lib/postgresql/*/bin/initdb && command -v chromium; } >/dev/null 2>&1 || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql chromium; }

demo: $(STAMP) ## run two of the ready pipelines on the emulator and show the tables
	$(BIN)/batch-etl demo

dev: $(STAMP) ## emulator and Dagster UI together; Ctrl-C ends both
	$(BIN)/batch-etl dev

test: $(STAMP) ## all tests
	$(BIN)/python -m pytest -n auto --dist loadfile

faults: $(STAMP) ## the table of faults, filled by running them
	$(BIN)/python -m batch_etl_tests.acceptance.fault_table

bench-memory: $(STAMP) ## peak memory of whole runs of 100,000 and 200,000 records
	$(BIN)/python -m batch_etl_tests.benchmarks.memory 100000 200000

kill-matrix: $(STAMP) ## a run killed at every point, first and later attempts, both databases
	$(BIN)/python -m batch_etl_tests.faults.kill_matrix

soak: $(STAMP) ## two hundred scenarios of seeded chaos
	$(BIN)/python -m batch_etl_tests.faults.soak --seeds 200

bench: $(STAMP) ## the floor, the engine and the usual way at 10,000 and 100,000 records
	$(BIN)/python -m batch_etl_tests.benchmarks.suite 10000 100000

bench-million: $(STAMP) ## the same at a million records too: a quarter of an hour
	$(BIN)/python -m batch_etl_tests.benchmarks.suite 10000 100000 1000000

bench-docs: $(STAMP) ## as bench-million, and rewrite the tables and the plot of docs/performance.md
	$(BIN)/python -m batch_etl_tests.benchmarks.suite 10000 100000 1000000 --docs

bench-check: $(STAMP) ## seconds: fails when a record costs far more than the floor
	$(BIN)/python -m batch_etl_tests.benchmarks.regression

bench-warehouse: $(STAMP) ## fifty million rows in a table: queries, loads, publishing
	$(BIN)/python -m batch_etl_tests.benchmarks.large_table 50000000

docs: $(STAMP) ## run the demo of all pipelines, and write its answers into docs/pipelines
	$(BIN)/python -m batch_etl_tests.pipeline_pages

screenshots: $(STAMP) ## take the pictures of Dagster's pages in docs/images anew
	$(BIN)/python -m batch_etl_tests.acceptance.screenshots docs/images

check: $(STAMP) ## format, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(STAMP) ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the virtual environment and all caches; data/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
