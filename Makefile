.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup serving system system-check system-bench run edge check generated generate format test coverage test-all soak fuzz lock bench bench-peers bench-guard docs dist sbom clean

PY := .venv/bin/python
PYTEST := $(PY) -m pytest
WORKERS := 3

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/ready-dev ## Make .venv and install what developing needs (PYTHON=python3.12 picks one)

serving: .venv/ready ## Make .venv and install what serving needs, no more

.venv/ready: requirements.lock pyproject.toml
	@tools/setup.sh

.venv/ready-dev: requirements-dev.lock pyproject.toml
	@tools/setup.sh dev

system: ## Install the Debian packages that tests need: nginx, Redis, Chromium, Node
	@tools/system.sh

system-check: ## Install the Debian packages that make check needs: linters
	@tools/system.sh check

system-bench: ## The same, and what benchmarks need: Go, Nchan, valgrind
	@tools/system.sh bench

run: serving ## Run the service; it says where to look
	@tools/run.sh

edge: serving ## Run nginx in front of the service (VARIANT=plain, njs or openresty; EDGE_PORT, EDGE_TLS_PORT, UPSTREAMS)
	@tools/edge.sh $(or $(VARIANT),plain)

check: setup system-check ## Style, types, linters, import contracts, generated files
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports --no-logo
	@tools/lint.sh
	@tools/generated.sh check

generated: setup ## Prove that generated files are current
	@tools/generated.sh check

generate: setup ## Write the generated files
	@tools/generated.sh write

format: setup ## Put code in order
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

test: setup system ## Run the tests, but not the slow ones (ARGS="-k hub" for some)
	@$(PYTEST) -n $(WORKERS) --dist loadfile -m "not slow and not soak" $(ARGS)

# Not the whole of make test: what is in the process itself, so that it is done in two minutes.
coverage: setup system ## Run the tests of core, brokers and gateway; fail where too few branches are taken
	@$(PYTEST) tests/core tests/brokers tests/gateway -n $(WORKERS) --dist loadfile -m "not slow and not soak" \
		--cov --cov-report=term-missing:skip-covered $(ARGS)

test-all: setup system-bench ## Run the slow tests, which make test leaves out
	@tools/test_all.sh $(WORKERS) $(ARGS)

# For 30 minutes with 10,000 connections: python -m bench soak, which prints figures.
soak: setup system ## Run the tests that go on for hours
	@$(PYTEST) -m soak $(ARGS)

fuzz: setup system ## Look for inputs that break a parser (SECONDS=300 for all, ARGS="tokens configs" for some)
	@$(PY) -m tests.fuzz --seconds $(or $(SECONDS),300) $(ARGS)

# Keeps the versions that the locks have, unless LOCK=--upgrade.
lock: setup ## Make the locks from pyproject.toml (LOCK=--upgrade for new versions)
	@$(LOCK_COMMAND) -o requirements.lock
	@$(LOCK_COMMAND) -c requirements.lock -o requirements-image.lock
	@$(LOCK_COMMAND) --group dev -c requirements.lock -o requirements-dev.lock
	@! grep -n '://' requirements*.lock

LOCK_COMMAND = $(PY) -m uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock" --quiet $(LOCK)

bench: setup system-bench ## Compare the nginx modes side by side (ARGS="--quick"; see bench/README.md)
	@$(PY) -m bench compare $(ARGS)

bench-peers: setup system-bench ## Compare the service with what others would use (ARGS="--quick"; see bench/README.md)
	@$(PY) -m bench peers $(ARGS)

bench-guard: setup system-bench ## Name the hot operations that became slower, by their instructions
	@$(PY) -m bench guard $(ARGS)

docs: setup ## Build the documents as a site, with a search: build/site
	@$(PY) tools/site.py

dist: setup system ## Build wheel, sdist and bill of materials, and prove the wheel in an empty virtual environment
	@tools/dist.sh

sbom: setup ## Write what the image has in it, as CycloneDX (FILE=tidegate.cdx.json)
	@tools/sbom.sh $(or $(FILE),tidegate.cdx.json)

clean: ## Remove what make made
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage build dist ./*.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
