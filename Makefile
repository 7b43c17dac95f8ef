# The one task runner. `make` lists the tasks; each sets up what it needs, once, and reuses it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory --no-builtin-rules

VENV := .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv
CDK := node_modules/.bin/cdk
EMULATOR := .venv-emulator

# the first interpreter that is new enough; `make PYTHON=/path/to/python3.13 setup` chooses another
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  if "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo "$$p"; break; fi; done)

# more for pytest, say `make test PYTEST_ARGS="-k claim -x"`
PYTEST_ARGS ?=
# processes that share the tests out; many of these wait, so four are right for two cores as well.
# `make test WORKERS=0` shares nothing
WORKERS ?= 4

# jsii warns on every start about Node 20, which still works; newer versions are not silenced
export JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION := 20
# the tasks below call `python` and `runsfleet` by name where another tool (cdk) starts them
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# behind a proxy of one's own the system knows the certificates, and uv would not ask it
export UV_SYSTEM_CERTS ?= 1

# dimmed on a terminal only ($(shell) captures stdout, so ask about stderr)
ifeq ($(NO_COLOR)$(shell test -t 2 || echo piped),)
say = printf '\033[2m· %s\033[0m\n'
else
say = printf '· %s\n'
endif
# $(call fail,what happened,cure)
fail = { printf '%s: %s\n' "$(1)" "$(2)" >&2; exit 1; }

##@ Everyday

.PHONY: help
help: ## list the tasks
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "%s%s\n", (n++ ? "\n" : ""), substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: $(VENV)/.stamp-self $(EMULATOR)/.stamp node_modules/.stamp ## set up everything, once; reused afterwards
	@$(PY) -c '' 2>/dev/null || $(call fail,the environment in $(VENV) does not start any more,run make clean setup)

.PHONY: local
local: setup ## run a workflow end to end on a local cloud, without an AWS account
	@$(VENV)/bin/runsfleet local run examples/workflows/hello.yml

.PHONY: test
test: setup ## run all tests
	@$(say) 'tests'
	@$(PY) -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

##@ Checks

.PHONY: check
check: lint types templates test ## everything that must be green: lint, types, templates, tests

.PHONY: lint
lint: setup ## ruff: rules and format
	@$(say) 'lint'
	@$(PY) -m ruff check --quiet . || $(call fail,lint found something,fix what is listed above; make format repairs part of it)
	@$(PY) -m ruff format --quiet --check . || $(call fail,these files are not formatted,run make format)

.PHONY: types
types: setup ## mypy, strict
	@$(say) 'types'
	@$(PY) -m mypy --no-error-summary $(wildcard app.py benchmarks examples/*/*.py runsfleet_* runtime stacks tests) || $(call fail,type errors,fix what is listed above)

.PHONY: templates
templates: setup ## cfn-lint, cdk-nag and the CDK's own validation of every template
	@$(say) 'templates'
	@$(PY) tests/infrastructure/check_templates.py

.PHONY: format
format: setup ## format, and repair what ruff can repair
	@$(PY) -m ruff check --quiet --fix-only .
	@$(PY) -m ruff format --quiet .

.PHONY: docs
docs: setup ## write the docs that are made from the code
	@$(PY) -m tests.contract.metrics_page

##@ Building

.PHONY: synth
synth: setup ## synthesize every stack of this app into cdk.out
	@$(CDK) synth --quiet

.PHONY: bench
bench: setup ## measure the budgets of docs/benchmarks.md
	@$(PY) -m benchmarks

.PHONY: simulate
simulate: setup ## live through a day of 10,000 jobs and draw it (docs/reliability.md)
	@$(PY) -m tests.simulation.day --plot docs/reliability-day.svg

.PHONY: wheel
wheel: setup ## build the wheel into dist
	@$(PY) -m build --wheel --no-isolation --outdir dist . >/dev/null 2>&1 || \
	  $(call fail,the wheel was not built,see: $(PY) -m build --wheel --no-isolation .)
	@ls dist/*.whl

# `make lock UPGRADE=1` takes newer versions; without it only what changed in the inputs moves
COMPILE := $(UV) pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links \
  --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)
UNIVERSAL := --universal --python-version 3.11
# deployed to one system, so without environment markers (docs/decisions/0002)
DEPLOYED := --python-platform aarch64-manylinux2014 --python-version 3.11 --only-binary :all:
LOCKS := requirements/installer.lock requirements/dev.lock runsfleet_cli/local/emulator.lock \
  runsfleet_constructs/bundling/functions.lock runsfleet_constructs/bundling/agent.lock
# $(call compile,lock file,inputs and options); a lock that did not change keeps its time, so that
# no environment is made anew for it
compile = cp $(1) $(1).new 2>/dev/null || true; $(COMPILE) $(2) --output-file $(1).new; \
  if cmp -s $(1) $(1).new; then rm $(1).new; else mv $(1).new $(1); printf '  %s\n' $(1); fi

.PHONY: lock
lock: $(VENV)/.stamp-uv tools ## compile all lock files anew, with hashes and without addresses
	@$(say) 'locks'
	@$(call compile,requirements/installer.lock,$(UNIVERSAL) requirements/installer.in)
	@$(call compile,requirements/dev.lock,$(UNIVERSAL) pyproject.toml --extra local --group dev requirements/dev.in)
	@$(call compile,runsfleet_cli/local/emulator.lock,$(UNIVERSAL) requirements/emulator.in)
	@$(call compile,runsfleet_constructs/bundling/functions.lock,$(DEPLOYED) requirements/functions.in)
	@$(call compile,runsfleet_constructs/bundling/agent.lock,$(DEPLOYED) requirements/agent.in)
	@cp package-lock.json package-lock.json.old && npm install --package-lock-only --ignore-scripts --silent
	@if cmp -s package-lock.json package-lock.json.old; then mv package-lock.json.old package-lock.json; \
	  else rm package-lock.json.old; printf '  %s\n' package-lock.json; fi
	@! grep -nE '://|"resolved"' $(LOCKS) package-lock.json || \
	  $(call fail,a lock file holds an address,it must work with any registry; see docs/decisions/0002)

.PHONY: clean
clean: ## remove environments, caches and everything built
	@rm -rf $(VENV) $(EMULATOR) node_modules build dist cdk.out .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ── the steps of the set-up; a stamp file says that a step was done with these inputs ──

.PHONY: tools
tools:
	@test -n "$(PYTHON)" || $(call fail,no Python 3.11 or newer was found,install one from your package manager or python.org$(comma) or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS))
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(call fail,$(PYTHON) is not Python 3.11 or newer,install one from your package manager or python.org$(comma) or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS))
	@command -v node >/dev/null || $(call fail,Node.js was not found,install Node 22 or 24 (20 is the oldest that works) from your package manager or nodejs.org)
	@node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' || $(call fail,Node.js $$(node --version) is too old,install Node 22 or 24 (20 is the oldest that works) from your package manager or nodejs.org)
	@command -v npm >/dev/null || $(call fail,npm was not found,install it: it comes with Node.js from nodejs.org and is the package npm on Debian)

comma := ,

$(VENV)/.stamp-uv: requirements/installer.lock | tools
	@$(say) 'python environment in $(VENV)'
	@"$(PYTHON)" -m venv --clear $(VENV) >/dev/null || $(call fail,$(PYTHON) cannot make a virtual environment,install its venv module (on Debian: apt install python3-venv))
	@$(PY) -m pip install -qq --require-hashes --only-binary :all: -r requirements/installer.lock || $(call fail,uv could not be installed,check the network or point pip at your mirror with PIP_INDEX_URL)
	@touch $@

# pip is the second way because it knows mirrors that are only named in pip's own configuration
$(VENV)/.stamp-deps: requirements/dev.lock $(VENV)/.stamp-uv
	@$(say) 'python packages'
	@$(UV) pip install --quiet --python $(PY) --no-deps --require-hashes -r requirements/dev.lock 2>/dev/null || \
	  { $(say) 'uv could not fetch them, pip tries its own configuration'; false; } || \
	  $(PY) -m pip install -qq --no-deps --require-hashes -r requirements/dev.lock || \
	  $(call fail,the packages of requirements/dev.lock could not be installed,check the network or point pip at your mirror with PIP_INDEX_URL)
	@touch $@

$(VENV)/.stamp-self: pyproject.toml $(VENV)/.stamp-deps
	@$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable . || $(call fail,runsfleet itself could not be installed into $(VENV),see above)
	@touch $@

$(EMULATOR)/.stamp: runsfleet_cli/local/emulator.lock | $(VENV)/.stamp-uv
	@$(say) 'emulator in $(EMULATOR)'
	@$(PY) -m venv --clear --without-pip $(EMULATOR)
	@$(UV) pip install --quiet --python $(EMULATOR)/bin/python --no-deps --require-hashes -r $< 2>/dev/null || \
	  { $(say) 'uv could not fetch it, pip tries its own configuration'; false; } || \
	  $(PY) -m pip --python $(EMULATOR)/bin/python install -qq --no-deps --require-hashes -r $< || \
	  $(call fail,the emulator could not be installed,check the network or point pip at your mirror with PIP_INDEX_URL)
	@touch $@

node_modules/.stamp: package-lock.json .npmrc | tools
	@$(say) 'CDK command'
	@npm ci --ignore-scripts --silent || $(call fail,npm could not install what package-lock.json names,check the network or point npm at your mirror with npm config set registry)
	@touch $@
