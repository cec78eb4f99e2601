# Set-up and checks. On a machine that has never seen the project, `make test` or `make quickstart` is all that is needed.
#
# Three environments, each made on first use and never by hand:
#   .venv             yours: the project installed editable, with every tool (make dev)
#   .venv-test        the built wheel and every tool; what `make test` and `make lint` use
#   .venv-quickstart  what a user would install, no more; what `make quickstart` uses
# and two for checks of their own: .venv-vertex-1 (make test-vertex-1), .venv-extras (make test-extras).
# pip takes its settings from this machine's own configuration.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:

BACKEND ?= local
PYTEST_ARGS ?=
PYTHON ?=

DEV := .venv
TEST := .venv-test
QUICK := .venv-quickstart
VERTEX1 := .venv-vertex-1
EXTRAS := .venv-extras
TREE := build/tree
# What the rehearsal of a cloud needs.
EXTRAS_sagemaker := rehearsal
EXTRAS_azureml := azureml,rehearsal
EXTRAS_vertex := vertex,rehearsal
# What devices, and the conversion for them, need.
EXTRAS_edge := edge,convert
PIP_FLAGS := --quiet --disable-pip-version-check -c constraints.txt
SOURCES := $(shell find modeldeploy -type f -not -name '*.pyc') README.md LICENSE pyproject.toml
RECIPE := pyproject.toml constraints.txt
# What the tests need beside the installed wheel; never modeldeploy/ itself, so that a file missing from the wheel is missed.
BESIDE := tests docs notebooks examples benchmarks README.md CHANGELOG.md CONTRIBUTING.md LICENSE Makefile pyproject.toml constraints.txt

# Prints the first Python that is new enough, PYTHON=... before all others.
define FIND_PYTHON
found=""; \
for each in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
  if command -v "$$each" >/dev/null 2>&1 && "$$each" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
  then found="$$each"; break; fi; \
done; \
if [ -z "$$found" ]; then \
  echo "make: no Python >= 3.11 with venv and ensurepip was found; install one (or its python3-venv package), or name one by adding PYTHON=/path/to/python3" >&2; \
  exit 1; \
fi
endef

.PHONY: help dev test test-again test-slow test-vertex-1 test-extras test-aarch64 lint quickstart quickstart-edge bench lock clean distclean

help:  ## Say what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

dev: $(DEV)/.stamp  ## Make .venv: editable, with every tool

quickstart: $(QUICK)/.stamp $(if $(EXTRAS_$(BACKEND)),$(QUICK)/.rehearsal-$(BACKEND))  ## Run the main job on this machine: make quickstart [BACKEND=local|sagemaker|azureml|vertex]
	@MODELDEPLOY_BACKEND="$(BACKEND)" MODELDEPLOY_SAGEMAKER_REHEARSAL=1 MODELDEPLOY_AZUREML_REHEARSAL=1 MODELDEPLOY_VERTEX_REHEARSAL=1 $(QUICK)/bin/python examples/quickstart.py

quickstart-edge: $(QUICK)/.rehearsal-edge  ## Run a fleet of twenty devices on this machine: convert, rings, a bad version halted, rollback, offline
	@$(QUICK)/bin/python examples/quickstart_edge.py

lint: $(TEST)/.stamp  ## Check style, types, import rules and spelling
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy
	PYTHONPATH=. $(TEST)/bin/lint-imports --no-logo
	$(TEST)/bin/codespell

test: lint $(TEST)/.wheel  ## Lint, then test the built wheel: make test [PYTEST_ARGS='-k wire']
	$(call run_tests,not slow and not aarch64,-n auto --dist loadfile)

test-again:  ## Repeat alone what failed in the last run of the tests
	cd $(TREE) && MODELDEPLOY_TEST_WHEEL=1 ../../$(TEST)/bin/pytest -m "not slow and not aarch64" --last-failed --last-failed-no-failures none $(PYTEST_ARGS)

test-slow: $(TEST)/.wheel  ## Run the tests that take long
	$(call run_tests,slow)

test-vertex-1: $(VERTEX1)/.stamp  ## Run the tests of Vertex AI on the first series of google-cloud-aiplatform
	$(VERTEX1)/bin/python -m pytest -m "not slow" tests/backends/vertex tests/simulate/vertex $(PYTEST_ARGS)

test-extras: $(EXTRAS)/.stamp  ## See that the extras of all clouds live together, and what the doctor says of them
	$(EXTRAS)/bin/python -c 'import azure.ai.ml, boto3, google.cloud.aiplatform_v1, google.cloud.storage; from modeldeploy.backends import azureml, sagemaker, vertex'
	$(EXTRAS)/bin/python -m pip check
	MODELDEPLOY_HOME=$$(mktemp -d) $(EXTRAS)/bin/modeldeploy doctor

test-aarch64: $(TEST)/.wheel  ## Run the bundle and the agent of a device on an emulated 64-bit ARM
	@for each in qemu-aarch64-static mmdebstrap unshare; do command -v $$each >/dev/null || missing=1; done; \
	if [ -n "$${missing:-}" ]; then \
	  echo "make: needs Linux and some tools; on Debian and Ubuntu run: apt-get install --no-install-recommends qemu-user-static mmdebstrap util-linux" >&2; \
	  exit 1; \
	fi
	$(call run_tests,aarch64,-rs)

bench: $(TEST)/.wheel  ## Measure ours and the peers: make bench [PEERS=none] [PARTS='serve batch'] [ROUNDS=5] [ROWS=10000000] [MODELS=lr]
	$(TEST)/bin/python benchmarks/run.py $(foreach each,PARTS PEERS ROUNDS ROWS SECONDS MODELS LEVELS,$(call bench_flag,$(each)))

# PARTS="serve batch" becomes --parts "serve batch".
bench_flag = $(if $($(1)),--$(shell echo $(1) | tr A-Z a-z) "$($(1))")

define run_tests
	@rm -rf $(TREE) && mkdir -p $(TREE)
	@for each in $(BESIDE); do if [ -e "$$each" ]; then cp -R "$$each" $(TREE)/; fi; done
	@find $(TREE) -name __pycache__ -prune -exec rm -rf {} +
	cd $(TREE) && MODELDEPLOY_TEST_WHEEL=1 ../../$(TEST)/bin/pytest -m "$(1)" $(2) $(PYTEST_ARGS)
endef

$(DEV)/.stamp: $(RECIPE)
	@$(FIND_PYTHON); [ -x $(DEV)/bin/python ] || "$$found" -m venv $(DEV)
	@echo "make: installing into $(DEV) (the first time takes a minute or two)"
	@$(DEV)/bin/python -m pip install $(PIP_FLAGS) -e '.[dev]'
	@touch $@

$(TEST)/.stamp: $(RECIPE)
	@$(FIND_PYTHON); [ -x $(TEST)/bin/python ] || "$$found" -m venv $(TEST)
	@echo "make: installing into $(TEST) (the first time takes a minute or two)"
	@$(TEST)/bin/python -m pip install $(PIP_FLAGS) '.[dev]'
	@rm -f $(TEST)/.wheel
	@touch $@

$(TEST)/.wheel: $(TEST)/.stamp $(SOURCES)
	@rm -rf build/wheel
	@$(TEST)/bin/python -m build --wheel --no-isolation --outdir build/wheel . >/dev/null
	@$(TEST)/bin/python -m pip install $(PIP_FLAGS) --no-index --no-deps --force-reinstall build/wheel/*.whl
	@touch $@

# Editable, so that an edit of the sources shows in the next run without another installation; pandas is how its data comes.
$(QUICK)/.stamp: $(RECIPE)
	@$(FIND_PYTHON); [ -x $(QUICK)/bin/python ] || "$$found" -m venv $(QUICK)
	@echo "make: installing into $(QUICK) (the first time takes about a minute)"
	@$(QUICK)/bin/python -m pip install $(PIP_FLAGS) -e '.[sklearn,batch]' pandas
	@touch $@

# A cloud without an account (the simulator, and the service's own model of its requests), or devices.
$(QUICK)/.rehearsal-%: $(QUICK)/.stamp
	@echo "make: installing what $* needs into $(QUICK) (the first time takes about a minute)"
	@$(QUICK)/bin/python -m pip install $(PIP_FLAGS) -e '.[sklearn,batch,$(EXTRAS_$*)]'
	@touch $@

# The oldest version that is promised; everything else as in the other environments.
$(VERTEX1)/.stamp: $(RECIPE)
	@$(FIND_PYTHON); [ -x $(VERTEX1)/bin/python ] || "$$found" -m venv $(VERTEX1)
	@echo "make: installing into $(VERTEX1) (the first time takes a minute or two)"
	@mkdir -p build && { grep -v '^google-cloud-aiplatform==' constraints.txt; echo 'google-cloud-aiplatform==1.165.1'; } > build/constraints-vertex-1.txt
	@$(VERTEX1)/bin/python -m pip install --quiet --disable-pip-version-check -c build/constraints-vertex-1.txt \
	  -e '.[sklearn,batch,vertex,rehearsal]' hypothesis pandas psutil pytest pytest-timeout
	@touch $@

$(EXTRAS)/.stamp: $(RECIPE)
	@$(FIND_PYTHON); [ -x $(EXTRAS)/bin/python ] || "$$found" -m venv $(EXTRAS)
	@echo "make: installing into $(EXTRAS) (the first time takes some minutes)"
	@$(EXTRAS)/bin/python -m pip install $(PIP_FLAGS) -e '.[sagemaker,azureml,vertex]'
	@touch $@

lock:  ## Refresh constraints.txt: the newest versions that fit, all together
	@rm -rf build/venv-lock && mkdir -p build
	@$(FIND_PYTHON); "$$found" -m venv build/venv-lock
	@build/venv-lock/bin/python -m pip install --quiet --disable-pip-version-check '.[dev,sagemaker]'
	@{ sed -n '/^#/p;/^[^#]/q' constraints.txt; \
	   build/venv-lock/bin/python -m pip freeze --exclude modeldeploy \
	     | grep -E '^[A-Za-z0-9._-]+==' | grep -vE '^(nvidia-|triton==)' | sed -E 's/\+[a-z0-9.]+$$//'; } > build/constraints.txt
	@mv build/constraints.txt constraints.txt
	@rm -rf build/venv-lock

clean:  ## Remove what was built; the environments stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage*
	find modeldeploy tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean  ## Remove the environments too
	rm -rf $(DEV) $(TEST) $(QUICK) $(VERTEX1) $(EXTRAS)
