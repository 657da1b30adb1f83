# Two commands matter: `make run` and `make test`. Each sets up what it needs, once.

SHELL := /bin/sh
VENV := .venv/bin
COMPILED = tests/unit tests/contract tests/wire/test_websocket*.py tests/wire/test_sse.py \
	tests/wire/test_openai_chat.py tests/wire/test_failover*.py tests/wire/test_redis_faults.py
SETUP = python=$$(sh scripts/python.sh) && "$$python" scripts/setup.py

.DEFAULT_GOAL := help
.PHONY: help run local compile dev twins test unit faults chaos check lint types format lock clean \
	bench bench-quick

help: ## Say what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

run: ## Set up once, then start the server on 127.0.0.1:3050
	@$(SETUP) run
	@exec $(VENV)/python server.py

local: ## Install the embedded model, also where a cloud key is set
	@$(SETUP) local

compile: ## Compile the modules on a token's way, for more tokens a core; needs a C compiler
	@$(SETUP) compile
	@exec $(VENV)/python scripts/compile.py

dev: ## Set up what the tests and checks need
	@$(SETUP) dev

twins: dev
	@$(VENV)/python scripts/compile.py || test $$? -eq 2

test: twins ## Run every test, and those of the compiled modules on them
	@$(VENV)/python -m pytest
	@$(VENV)/python scripts/compile.py --able >/dev/null || exit 0; \
	RELAY_TEST_COMPILED=1 exec $(VENV)/python -m pytest $(COMPILED)

unit: dev ## Run the unit tests in a hurry: few generated examples, nothing that starts a process
	@exec $(VENV)/python -m pytest -q tests/unit -m "not slow" --hypothesis-profile=quick $(ARGS)

faults: dev ## Play every fault on every wire and transport; ARGS="--fast" and others pass on
	@exec $(VENV)/python -m lab.faults $(ARGS)

chaos: dev ## Break two nodes and their Redis for MINUTES=10; ARGS="--kills 100" and others pass on
	@exec $(VENV)/python -m lab.chaos --minutes $(or $(MINUTES),10) $(ARGS)

check: lint test ## Format, lint, types, layers, then every test

lint: dev ## Format, lint, types and layers, without the tests
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/lint-imports

types: dev ## Check the types of the server, the tests and the labs
	$(VENV)/mypy

bench: twins ## Measure the relay beside its peers (Linux, two cores, about an hour)
	@exec $(VENV)/python -m lab.bench

bench-quick: twins ## One round of it, under three minutes
	@exec $(VENV)/python -m lab.bench --quick

format: dev ## Bring the code into shape
	$(VENV)/ruff format .
	$(VENV)/ruff check --fix .

lock: dev ## Write the exact versions and hashes of every package anew
	@exec $(VENV)/python scripts/lock.py

clean: ## Remove the virtual environment and all caches
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
