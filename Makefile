# Everything a developer does, each in one command. Each target sets up what it needs.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export SAM_CLI_TELEMETRY := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Python 3.13: pyenv finds it by .python-version; elsewhere python3.13 or a python3 that is one.
PYTHON := $(shell for p in python3.13 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null && { echo "$$p"; break; }; done)
RECORDS ?= 20000
UPGRADE ?= --upgrade

# The SAM CLI without the user's AWS settings, and without files in the home directory.
SAM := env -u AWS_PROFILE AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null \
	AWS_DEFAULT_REGION=us-east-1 __SAM_CLI_APP_DIR=$(CURDIR)/.local/sam .local/tools/sam/bin/sam

.PHONY: help setup demo test test-unit test-integration test-sam test-iam test-large test-chaos test-esm prove prove-mutants \
	prove-model chaos lint check-template docs format bench dist events authorities pins clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: .venv/.ready .venv/bin/once .local/tools/ministack/.ready .local/tools/sam/.ready .local/tools/moto/.ready ## the development environment and the local tools

define environment
	@test -n "$(PYTHON)" || { echo "Oncestream needs Python 3.13 (the runtime of its functions) and found none:" \
	  "install it, e.g. 'pyenv install 3.13', and run this again." >&2; exit 1; }
	@echo "Setting up $(@D) ..."
	@rm -rf $(@D) && $(PYTHON) -m venv $(@D)
endef

.venv/.ready: requirements-dev.txt local/requirements/data.txt
	$(environment)
	@$(@D)/bin/pip install -q -r requirements-dev.txt
	@$(@D)/bin/pip install -q --no-deps -r local/requirements/data.txt
	@touch $@

.venv/bin/once: pyproject.toml .venv/.ready
	@.venv/bin/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

.local/tools/%/.ready: local/requirements/%.txt
	$(environment)
	@$(@D)/bin/pip install -q -r $<
	@touch $@

.local/tools/kinesalite/.ready: local/requirements/kinesalite/package-lock.json
	@command -v npm >/dev/null || { echo "kinesalite needs npm (Node.js 18 or newer): install it and run this again." >&2; exit 1; }
	@echo "Setting up $(@D) ..."
	@rm -rf $(@D) && mkdir -p $(@D) && cp local/requirements/kinesalite/*.json $(@D)
	@cd $(@D) && npm ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

demo: setup ## the whole way of a file on this machine, with deliveries repeated on purpose [RECORDS=N | INPUT=FILE]
	@.venv/bin/once demo $(if $(INPUT),--input "$(INPUT)",--records $(RECORDS))

events: setup ## record events/ anew from the running stack
	@.venv/bin/python -m local.record_events

ALL := --ignore=tests/sam --ignore=tests/chaos --ignore=tests/esm --ignore=tests/integration/test_iam.py

test: setup ## all tests: unit, integration (MiniStack, a real Postgres), end to end [TESTS=PATHS]
	@.venv/bin/pytest -q -n 2 --dist loadscope --no-loadscope-reorder --durations=10 $(or $(TESTS),$(ALL))

test-unit: TESTS = tests/unit
test-unit: test ## the unit tests alone

test-integration: TESTS = $(ALL) --ignore=tests/unit
test-integration: test ## all but the unit tests

test-iam: setup ## every permission of the template taken away in turn, under enforced IAM (minutes)
	@.venv/bin/pytest -q --durations=5 tests/integration/test_iam.py

test-sam: setup ## every function with every recorded event in a container, by sam local (needs a container engine)
	@ONCESTREAM_DOCKERD=1 .venv/bin/pytest -q -rs --durations=5 tests/sam

test-chaos: setup .local/tools/mitmproxy/.ready ## a small `make chaos`, and its page in headless Chromium (skipped without one)
	@.venv/bin/pytest -q -rs --durations=5 tests/chaos

test-esm: setup .local/tools/kinesalite/.ready ## the stream poller against three emulators, killed and resharded [RECORDS=N]
	@ONCESTREAM_RECORDS=$(if $(filter command line environment,$(origin RECORDS)),$(RECORDS),3000) .venv/bin/pytest -q -rs --durations=5 tests/esm

test-large: setup ## the account of a file of 200,000 lines, every chunk job delivered twice (minutes)
	@ONCESTREAM_LINES=200000 .venv/bin/pytest -q tests/e2e/test_uploads.py

prove: setup ## random histories of faults, 10,000 of them, and the account of each [HISTORIES=N] [SEED=N]
	@HISTORIES=$(HISTORIES) SEED=$(SEED) .venv/bin/python -m tests.faults.prove

prove-mutants: setup ## takes the mechanisms of the guarantee away, one at a time, and shows what goes wrong then
	@.venv/bin/python -m tests.faults.prove_mutants

prove-model: setup ## the protocol of the claims, in every order of its steps, by spin (minutes; needs spin and gcc)
	@.venv/bin/python -m tests.model.page

chaos: setup .local/tools/mitmproxy/.ready ## the stack loads records while its parts are broken, and a page about it [RECORDS=N] [SEED=N]
	@.venv/bin/python -m chaos $(if $(filter command line environment,$(origin RECORDS)),--records $(RECORDS)) $(if $(SEED),--seed $(SEED))

lint: .venv/.ready .local/tools/sam/.ready ## style, types, who imports whom, and the template
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy src local cli chaos lambda_esm
	@PYTHONPATH=src .venv/bin/lint-imports --cache-dir .local/import-linter
	@$(SAM) validate --lint

# Not in lint: Checkov is 270 MB, a minute to install, and asks the same after every change that is not the template's.
check-template: .local/tools/checkov/.ready ## the template against Checkov's rules
	@.local/tools/checkov/bin/checkov --config-file .checkov.yaml

docs: .venv/bin/once .local/tools/docs/.ready ## the site of the documents, in .local/site; a link that leads nowhere fails
	@.venv/bin/python -m local.site
	@.local/tools/docs/bin/zensical build --strict --clean

format: .venv/.ready ## put the code into the project's format
	@.venv/bin/ruff check --fix-only
	@.venv/bin/ruff format

bench: setup ## consumers and producers side by side (QUICK=1: the headline only, FULL=1: the whole grid)
	@.venv/bin/python -m bench

# The distributions that others install, each from its folder.
DISTRIBUTIONS := src/oncestream lambda_esm

dist: .venv/.ready ## the wheels that others install, into dist/
	@for folder in $(DISTRIBUTIONS); do .venv/bin/pip wheel -q --no-deps -w dist ./$$folder; done
	@ls dist/*.whl

authorities: ## fetch the authorities of RDS anew (needs the internet)
	@curl -fsS https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem -o src/postgres/authorities/rds.pem

clean: ## remove everything that was built or set up; ends a stack that runs in the background
	@[ ! -e .venv/.ready ] || .venv/bin/python -c 'from local import background; background.stop()'
	@rm -rf .aws-sam .local .venv dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	@find . -name __pycache__ -prune -exec rm -rf {} +

pins: .venv/.ready ## pin the dependencies anew from the .in files [UPGRADE=: only what is new in them]
	@compile="$(CURDIR)/.venv/bin/pip-compile -q $(UPGRADE) --strip-extras --no-header --annotation-style=line \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host"; \
	(cd src && $$compile --generate-hashes requirements.in -o requirements.txt); \
	$$compile requirements-dev.in -o requirements-dev.txt; \
	cd local/requirements && for tool in ministack sam moto checkov mitmproxy docs; do $$compile $$tool.in -o $$tool.txt; done
