# Two commands for a start: `make run` and `make test`. What CI runs (.ci/run) are these targets.
# PYTHON names the interpreter that .venv is made with (3.11 or newer); PYTEST_ARGS goes to pytest, which runs in
# PYTEST_WORKERS processes, each with a Kafka of its own.

PYTHON ?= python3
PYTEST_ARGS ?=
PYTEST_WORKERS ?= 2
COUNT ?= 100000
export PIP_DISABLE_PIP_VERSION_CHECK = 1

BIN := .venv/bin
# What is installed says so by these files: set-up isn't repeated until the lists change.
INSTALLED := .venv/.installed
INSTALLED_DEV := .venv/.installed-dev
PIP_INSTALL := $(BIN)/pip install --quiet --only-binary :all: --require-hashes
# The project itself: what builds it is among the pinned packages, so nothing else is downloaded.
INSTALL_PROJECT := $(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .

.DEFAULT_GOAL := help
.PHONY: help run install tools test simulate lint docs format bench faults fuzz peers check-deploy lock proto clean

help: ## Say what the targets do
	@sed -n 's/^\([a-z-]*\):.* ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: $(INSTALLED) ## Set up, then run everything in one process with a demo shop
	$(BIN)/spanmill dev --demo

install: $(INSTALLED) ## Set up what running needs: .venv with the command spanmill

tools: $(INSTALLED_DEV) ## Set up what tests need: packages, Kafka, Prometheus, OTLP clients
	tools/set_up_tests.sh

test: tools ## Set up, then run the tests
	$(BIN)/python -m tools.compile_kernels
	$(BIN)/pytest --numprocesses $(PYTEST_WORKERS) --dist worksteal $(PYTEST_ARGS)

simulate: $(INSTALLED_DEV) ## Run COUNT random schedules of faults over the protocol, in virtual time: hours for the default
	$(BIN)/python -m tools.compile_kernels
	$(BIN)/python -m tests.simulation --count $(COUNT)
	$(BIN)/python -m tests.simulation --broken

lint: $(INSTALLED_DEV) ## Check style, types, imports and generated files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	tools/check_protobuf.sh
	$(BIN)/python tools/config_reference.py --check
	$(BIN)/python tools/metrics_reference.py --check
	$(BIN)/python tools/parity.py --check

docs: $(INSTALLED_DEV) ## Write the pages of docs that are made from code
	$(BIN)/python tools/config_reference.py
	$(BIN)/python tools/metrics_reference.py
	$(BIN)/python tools/parity.py

format: $(INSTALLED_DEV) ## Format, and fix what can be fixed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: tools ## Measure spans per CPU-second
	for each in tests/benchmarks/bench_*.py; do \
		echo "== $$each" && $(BIN)/python -m tests.benchmarks.$$(basename $$each .py) || exit 1; \
	done

faults: tools ## Run every fault on real Kafka and Prometheus, under load: about an hour
	$(BIN)/python -m tests.faults
	$(BIN)/python -m tests.faults random_kills --kills 200
	$(BIN)/python -m tests.faults prometheus_down --down 600
	$(BIN)/python -m tests.faults backlog --backlog 2000000

fuzz: $(INSTALLED_DEV) ## Send a million mutated requests through the distributor's scan, and compare with protobuf
	$(BIN)/python -m tests.intake_fuzz $$(date +%s) 1000000

peers: tools ## Run the tests against peers that are built from source
	tools/fetch_collector.sh
	tools/fetch_prometheus3.sh
	$(BIN)/pytest -m peers $(PYTEST_ARGS)

check-deploy: $(INSTALLED_DEV) ## Check the chart, the compose file and the Dockerfile, without a container engine
	tools/fetch_helm.sh
	$(BIN)/pytest tests/deploy $(PYTEST_ARGS)

lock: $(INSTALLED_DEV) ## Pin the requirements anew, within the bounds of pyproject.toml
	tools/lock.sh

proto: $(INSTALLED_DEV) ## Generate the modules of the .proto files
	tools/generate_protobuf.sh

clean: ## Remove the environment and what was fetched
	rm -rf .venv .cache build *.egg-info

.venv/bin/pip:
	PYTHON=$(PYTHON) tools/make_venv.sh

$(INSTALLED): requirements.txt pyproject.toml | .venv/bin/pip
	@echo "Installing what Spanmill needs into .venv (a minute or two the first time) ..."
	$(PIP_INSTALL) -r requirements.txt
	$(INSTALL_PROJECT)
	@touch $@

$(INSTALLED_DEV): requirements-dev.txt pyproject.toml | .venv/bin/pip
	@echo "Installing what Spanmill's tests need into .venv (a minute or two the first time) ..."
	$(PIP_INSTALL) -r requirements-dev.txt
	$(INSTALL_PROJECT)
	@touch $(INSTALLED) $@
