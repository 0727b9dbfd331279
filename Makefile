# Needs Python >= 3.11, Node >= 20 and make; everything else is installed into this folder.
#
#   make run                       a sample of real prompts, from the drop to the results
#   make run FILE=my.jsonl OPTIONS='{"max_tokens": 64}' WORKERS=3 OUT=results
#   make run FILE=my.jsonl OPTIONS=@options.json
#   make up                        keep everything running for tools of one's own
#   make test                      all tests but further cases of a kind and what takes minutes
#   make test-fast                 decisions, contracts on doubles, a hundred simulated worlds
#   make test-long                 further cases, and what takes minutes
#   make lint                      ruff and mypy

PYTHON ?= $(shell for python in python3.12 python3.13 python3.11 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$python; break; }; done)

FILE ?= samples/gsm8k-500.jsonl
OPTIONS ?= {"max_tokens": 100}
WORKERS ?= 1
OUT ?=
AGAIN ?=
# As they are written: a $ in them means nothing to make.
override FILE := $(value FILE)
override OPTIONS := $(value OPTIONS)
override WORKERS := $(value WORKERS)
override OUT := $(value OUT)
export FILE OPTIONS WORKERS OUT AGAIN

# The rooms of workers/, what holds the doubles to their contracts, and a hundred worlds.
FAST = $(wildcard $(patsubst workers/%/,tests/%,$(wildcard workers/[a-z]*/)) tests/test_*.py) \
	$(patsubst %,tests/contract/test_%.py,blobs bus doubles faults) tests/simulation/test_world.py

# Tests that share a module's parts stay in one process. Five also on two cores: many of them wait.
# They come in the order of tests/conftest.py, and not the largest groups first.
PYTEST = .venv/bin/python -m pytest --numprocesses 5 --dist loadgroup --no-loadscope-reorder

# Images often set it; but each run starts some hundred processes of the same modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run up test test-fast test-long lint setup clean

# Through the environment, so that no quote in them means anything to the shell.
run: setup
	@.venv/bin/python -m local run "$$FILE" --options "$$OPTIONS" --workers "$$WORKERS" $${OUT:+--out "$$OUT"} $${AGAIN:+--again}

up: setup
	@.venv/bin/python -m local up --workers "$$WORKERS"

test: setup
	$(PYTEST)

# One on each core: hardly any of these waits.
test-fast: setup
	$(PYTEST) --numprocesses auto -m "not slow and not long" $(FAST)

test-long: setup
	$(PYTEST) -m long

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# Both at a time: each keeps one core busy for a minute.
setup:
	@$(MAKE) --silent --jobs=2 .venv/.installed node_modules/.installed

.venv/.installed: requirements.txt requirements-dev.txt
	@test -n "$(PYTHON)" || { echo "error: no Python >= 3.11 found: install one, or say make PYTHON=/path/to/python" >&2; exit 1; }
	@! test -L .venv || ! grep -qvxF "$$(pwd -P)" .venv/lib/python*/site-packages/phi3-batch-worker.pth 2>/dev/null \
		|| { echo "error: .venv is a link to another folder's environment: remove it, and make again" >&2; exit 1; }
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "installing Python packages into .venv"
	@.venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -r requirements-dev.txt
	@.venv/bin/python -c 'import os, site; open(os.path.join(site.getsitepackages()[0], "phi3-batch-worker.pth"), "w").write(os.getcwd())'
	@printf '#!/bin/sh\nexec "$$(dirname "$$0")/python" -P -m phi3batch "$$@"\n' > .venv/bin/phi3batch && chmod +x .venv/bin/phi3batch
	@touch $@

node_modules/.installed: package.json package-lock.json
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null || { echo "error: Node >= 20 is needed: install it" >&2; exit 1; }
	@echo "installing Azurite into node_modules"
	@npm ci --loglevel=error --no-audit --no-fund
	@touch $@

clean:
	rm -rf .venv node_modules .local out .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
