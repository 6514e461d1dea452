# The commands of the project. They work from a fresh clone: the first one makes .venv, later ones find it ready.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: run test lint format litellm-client bench bench-litellm bench-gateway check-config image package entra preflight plan deploy smoke verify named-values checkov focus-validator phoenix help

PY := .venv/bin/python
READY := .venv/.ready
CHECKOV := .local/checkov-3.3.30
FOCUS := .local/focus-validator-2.2.1
PHOENIX := .local/phoenix-20.26.1
FOCUS_PYTHON ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.12*/bin/python $(HOME)/.pyenv/versions/3.13*/bin/python) python3.12)
# The order of the files is that of tests/support/file_order.py.
PYTEST_ARGS ?= -q -n 2 --dist loadfile --no-loadscope-reorder
CONFIG_DIR ?= config
IMAGE ?= tollkeeper-gateway
ENVIRONMENT = $(or $(ENV),$(error ENV is missing: one of infra/terraform/environments, such as `make $@ ENV=dev`))
# TOUR (0: only serve), ONCE (1: exit after the tour), GATEWAY (builtin or apim), FUNCTIONS_PORT and GATEWAY_PORT reach
# `make run` from the environment or the command line as they are.

run: $(READY) ## start everything on this machine and play the tour (TOUR=0, ONCE=1; GATEWAY=apim: through the APIM policies)
	@$(PY) -m local

test: lint ## lint, types, and all tests (PYTEST_ARGS="-q tests/unit" for some)
	@$(PY) -m pytest $(PYTEST_ARGS)

lint: $(READY) ## ruff and mypy --strict
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: $(READY) ## let ruff put the code into shape
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

litellm-client: $(READY) ## call the gateway with LiteLLM (installs it once, into the virtualenv of bench-litellm)
	@$(PY) -m bench.litellm_runner
	@$(PY) -m pytest -q tests/e2e/test_gateway_scripts.py -k litellm

bench: $(READY) ## measure against a baseline in the same run (BENCH="engine scale" for some)
	@$(PY) -m bench $(BENCH)

bench-litellm: $(READY) ## the budget cycle beside LiteLLM's (installs it once, into a virtualenv of its own)
	@$(PY) -m bench.litellm_runner
	@$(PY) -m bench engine

bench-gateway: $(READY) ## the gateway beside LiteLLM's proxy and Portkey's gateway (installs both once, away from ours)
	@$(PY) -m bench.litellm_runner
	@$(PY) -m bench.gateway_targets
	@$(PY) -m bench gateway

check-config: $(READY) ## validate CONFIG_DIR (default: config), naming file, line and field of every problem
	@$(PY) -m shared.config check $(CONFIG_DIR)

package: $(READY) ## build the function app's package for Azure, .local/package/tollkeeper.zip (needs a Python 3.12)
	@$(PY) -m scripts.azure.package

image: ## build the built-in gateway's container image and see it start and stop (needs Docker; IMAGE=its name)
	@docker build --tag $(IMAGE) .
	@scripts/image_starts $(IMAGE)

entra: $(READY) ## register the apps of ENV in Entra ID and give the app roles (YES=1: without asking)
	@$(PY) -m scripts.azure.entra $(ENVIRONMENT)

preflight: $(READY) ## ask Azure whether ENV can be deployed: region, quota, names, policies, permissions
	@$(PY) -m scripts.azure.preflight $(ENVIRONMENT)

plan: named-values ## show what `make deploy` would change in ENV
	@$(PY) -m scripts.azure.deploy plan $(ENVIRONMENT)

deploy: named-values ## infrastructure, configuration and code of ENV (YES=1: without asking; PACKAGE=a.zip: that code)
	@$(PY) -m scripts.azure.deploy deploy $(ENVIRONMENT)

smoke: $(READY) ## ask ENV as it runs: who gets in, is it healthy, does a call go through
	@$(PY) -m scripts.azure.smoke $(ENVIRONMENT)

verify: $(READY) ## measure in ENV what only a live gateway shows (ARGS="--list", "--points 12,18", "--disturb", "--json")
	@$(PY) -m scripts.azure.verify $(ENVIRONMENT) $(ARGS)

named-values: $(READY) ## write what the gateway must know of CONFIG_DIR for the infrastructure templates
	@$(PY) -m shared.config named-values $(CONFIG_DIR) infra/terraform/config.auto.tfvars.json

checkov: $(CHECKOV)/bin/checkov ## security rules for the templates (installs Checkov once, into a virtualenv of its own)
	@$< --config-file .checkov.yaml

focus-validator: $(FOCUS)/bin/focus-validator ## the FinOps Foundation's validator on our FOCUS 1.2 file (installs it once; Python 3.12)
	@FOCUS_VALIDATOR=$(FOCUS) $(PY) -m pytest -q tests/unit/reports/test_focus_gates.py

phoenix: $(PHOENIX)/bin/phoenix ## a billed call at a real Arize Phoenix (installs it once, into a virtualenv of its own)
	@PHOENIX=$(PHOENIX) $(PY) -m pytest -q tests/e2e/test_phoenix.py

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(CHECKOV)/bin/checkov: | $(READY)
	@echo "Installing Checkov into $(CHECKOV) (once; a minute or two)"
	@$(PY) -m venv --clear $(CHECKOV)
	@$(CHECKOV)/bin/pip install -q --disable-pip-version-check checkov==$(subst .local/checkov-,,$(CHECKOV))

# Its own virtualenv: 600 MB, a NumPy that ours is not, and a pyarrow from before it wanted the new NumPy.
$(FOCUS)/bin/focus-validator: | $(READY)
	@echo "Installing focus-validator into $(FOCUS) (once; some minutes)"
	@$(FOCUS_PYTHON) -m venv --clear $(FOCUS)
	@$(FOCUS)/bin/pip install -q --disable-pip-version-check focus-validator==$(subst .local/focus-validator-,,$(FOCUS)) 'pyarrow<24'

# Its own virtualenv: 855 MB, and pins that ours do not follow.
$(PHOENIX)/bin/phoenix: | $(READY)
	@echo "Installing Arize Phoenix into $(PHOENIX) (once; two minutes)"
	@$(PY) -m venv --clear $(PHOENIX)
	@$(PHOENIX)/bin/pip install -q --disable-pip-version-check arize-phoenix==$(subst .local/phoenix-,,$(PHOENIX))

# Set-up runs once, and again when a requirements file changes. It stops with a sentence, not a traceback.
$(READY): requirements.txt requirements-dev.txt gateway/requirements.txt
	@python=$$(for p in $${PYTHON:-python3 python3.13 python3.12 python3.11}; do \
	  if "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then echo "$$p"; break; fi; \
	done); \
	if [ -z "$$python" ]; then echo "Python 3.11 to 3.13 is needed; set PYTHON to its path" >&2; exit 1; fi; \
	if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  echo "Making .venv with $$("$$python" --version)"; \
	  "$$python" -m venv --clear .venv || { echo "venv is missing: apt-get install python3-venv" >&2; exit 1; }; \
	fi
	@echo "Installing the packages into .venv (once; a minute or so)"
	@$(PY) -m pip install --disable-pip-version-check --no-input --progress-bar off -r requirements-dev.txt 2>.venv/setup.log \
	  | awk '/^Collecting/ && ++n % 20 == 0 {print "  " n " packages found"; fflush()} \
	         /^Installing collected/ {print "  installing"; fflush()} /^Successfully/ {print "  done"}' \
	  || { cat .venv/setup.log >&2; exit 1; }
	@$(PY) -m pip install --disable-pip-version-check --no-input --progress-bar off -q --no-deps -e . 2>.venv/setup.log \
	  || { cat .venv/setup.log >&2; exit 1; }
	@touch $@
