# Every task of this project, one line each: run `make help`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON3 ?= python3
UV_VERSION := 0.13.8
UV := .venv-uv/bin/uv
PYTHON := .venv/bin/python
CRD_FOLDERS := crds helm/kubeagents-crds/files

# uv trusts the machine's certificate store, as pip and curl do.
export UV_SYSTEM_CERTS := true

##@ Getting started

.PHONY: help
help: ## Show this text
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
	  /^[a-z][a-z0-9-]*:.*## / {printf "  \033[36m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/.ready ## Make .venv with the locked dependencies (about 20 s the first time)

.PHONY: demo
demo: setup ## Run the quickstart on this machine, submit real tasks, leave it running until Ctrl-C
	@$(PYTHON) -m agent_runtime.cli.main dev examples/01-quickstart --quiet --keep-running -- $(PYTHON) examples/01-quickstart/demo.py

##@ Development

.PHONY: generate
generate: setup ## Write all that is generated: CRDs, reference pages, code of gRPC, the charts' values, the examples' ConfigMaps
	$(PYTHON) -m kubeagents_api.crdgen $(CRD_FOLDERS)
	$(PYTHON) -m kubeagents_api.docgen docs/reference
	$(PYTHON) helm/generate_values.py
	$(PYTHON) examples/generate_code.py
	$(PYTHON) -m agent_runtime.protos
	$(PYTHON) -m tests.conformance.protocols.reference

.PHONY: record-statuses
record-statuses: setup ## Bring objects into every state on a real API server, and keep their statuses as test data for Argo CD
	$(PYTHON) -m tests.support.packages redis-server
	KUBEAGENTS_RECORD_STATUSES=1 $(PYTHON) -m pytest tests/integration/operator/test_gitops_states.py

.PHONY: verify
verify: setup ## Fail if something generated is stale, or the lock does not fit pyproject.toml
	$(UV) lock --check
	$(PYTHON) -m kubeagents_api.crdgen --check $(CRD_FOLDERS)
	$(PYTHON) -m kubeagents_api.docgen --check docs/reference
	$(PYTHON) helm/generate_values.py --check
	$(PYTHON) examples/generate_code.py --check
	$(PYTHON) -m agent_runtime.protos --check
	$(PYTHON) -m tests.conformance.protocols.reference --check

.PHONY: format
format: setup ## Format the code
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

.PHONY: lint
lint: setup ## ruff, mypy --strict, import contracts, module size
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	@over=$$(git ls-files '*.py' ':!agent_runtime/protos' | xargs wc -l | awk '$$2 != "total" && $$1 > 600'); \
	  if [ -n "$$over" ]; then echo "over the limit of 600 lines:"; echo "$$over"; exit 1; fi

##@ Tests

.PHONY: test
test: test-unit test-integration test-e2e ## Everything, on a real cluster too (about 40 min; the first time 15 min more)

.PHONY: test-unit
test-unit: setup ## No I/O, seconds
	$(PYTHON) -m pytest tests/unit -q

.PHONY: test-integration
test-integration: setup ## Real Redis, sockets, processes, and a control plane for the operator (about 20 min)
	$(PYTHON) -m tests.support.packages redis-server
	$(PYTHON) -m pytest tests/conformance tests/integration -n 4 --dist loadgroup

.PHONY: test-e2e
test-e2e: setup ## On a real Kubernetes cluster; makes one where none is given (about 18 min; KEEP=1 leaves it running)
	$(PYTHON) -m tests.e2e $(if $(KEEP),--keep-cluster)

.PHONY: chaos
chaos: setup ## Kill, freeze, cut and restart all there is, and see what the queue promised (1,000,000 tasks; TASKS= SEED= PART=)
	@$(PYTHON) -m tests.support.packages redis-server
	@$(PYTHON) -m tests.chaos $(if $(TASKS),--tasks $(TASKS)) $(if $(SEED),--seed $(SEED)) $(if $(PART),--part $(PART)) $(if $(ROUND),--round $(ROUND))

##@ A real cluster to play with

.PHONY: images
images: ## Build the container images with docker, podman or buildah
	images/build.sh

.PHONY: cluster-up
cluster-up: setup ## Start a Kubernetes cluster on this machine (kind where Docker answers, else built here)
	$(PYTHON) -m tests.cluster up

.PHONY: cluster-demo
cluster-demo: setup ## Cluster, images, chart and the quickstart, then show what to type
	$(PYTHON) -m tests.cluster demo

.PHONY: cluster-down
cluster-down: setup ## Stop that cluster and leave nothing behind
	$(PYTHON) -m tests.cluster down

##@ Benchmarks

.PHONY: bench-smoke
bench-smoke: setup ## Tasks/s of the quickstart here, apply -> Ready on the cluster; JSON in build/bench/
	$(PYTHON) -m benchmarks.smoke

.PHONY: bench-queue
bench-queue: setup ## The queue beside taskiq, streaq, saq, arq, celery, dramatiq and BullMQ (12 min; QUICK=1 takes 2)
	$(PYTHON) -m benchmarks.queue $(if $(QUICK),--quick)

.PHONY: bench-operator
bench-operator: setup ## The operator beside direct creation and a plain kopf operator (25 min; AGENTS=1000 takes 6)
	$(PYTHON) -m tests.support.packages redis-server
	$(PYTHON) -m benchmarks.operator $(if $(AGENTS),--agents $(AGENTS))

.PHONY: bench-protocols
bench-protocols: setup ## Each protocol beside bare FastAPI, grpc.aio and websockets servers (QUICK=1 for a short run)
	$(PYTHON) -m tests.support.packages redis-server
	$(PYTHON) -m benchmarks.protocols $(if $(QUICK),--quick)

.PHONY: clean
clean: ## Remove what was built in this checkout
	rm -rf .venv .venv-uv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# ---------------------------------------------------------------------------------------------------------------------

.venv-uv/bin/uv:
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 or newer is needed: install it, or say which with PYTHON3=/path/to/python" >&2; exit 1; }
	@echo "Installing uv $(UV_VERSION) into .venv-uv"
	@$(PYTHON3) -m venv .venv-uv || { rm -rf .venv-uv; \
	  echo "making a virtual environment failed: on Debian and Ubuntu, install the package python3-venv" >&2; exit 1; }
	@.venv-uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/.ready: pyproject.toml uv.lock | .venv-uv/bin/uv
	@echo "Installing the locked dependencies into .venv"
	@$(UV) sync --quiet --frozen --all-extras --python "$$($(PYTHON3) -c 'import sys; print(sys.executable)')"
	@touch $@
