# Everything there is to do with this repository. `make run` on a fresh machine with Python 3.11 or newer is enough.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
TORCH := $(shell grep '^torch==' requirements.txt)
CPU_TORCH := --index-url https://download.pytorch.org/whl/cpu --retries 1 --timeout 30

.PHONY: help setup run demo test check format bench docs promptfoo screenshots
.DELETE_ON_ERROR:

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.loops  ## make .venv and install what the app needs

run: setup  ## serve the app at http://127.0.0.1:7860 (options: make run ARGS="--port 8000")
	$(BIN)/python app.py $(ARGS)

demo: setup  ## the whole loop with a scripted annotator
	$(BIN)/python app.py demo $(ARGS)

test: $(VENV)/.dev $(VENV)/.loops  ## install all that tests need, the browser included, and run everything
	.ci/browser
	.ci/tests $(BIN)/python $(ARGS)

check: $(VENV)/.dev  ## the fast gate: format, lint, types, layers, strings, docs, mutations
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	.ci/javascript
	$(BIN)/python -m pytest -q -m "not slow and not browser" tests/test_layers.py tests/test_docs.py $(wildcard tests/ui/test_text.py tests/ui/test_strings.py)
	$(BIN)/python -m tests.mutations

format: $(VENV)/.dev  ## put the code in shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev  ## measure against peers (one: make bench ARGS="start --quick")
	$(BIN)/python -m bench $(or $(ARGS),start)

docs: $(VENV)/.run  ## write the generated documents anew
	$(BIN)/python -m docs.generate

promptfoo:  ## install promptfoo from npm, for the test that our exports load in it (needs Node 20.20 or newer)
	npm install --prefix .promptfoo --no-save --no-audit --no-fund promptfoo@0.121.20

screenshots: $(VENV)/.dev  ## a picture of every page, light and dark, en and zh, into screenshots/
	.ci/browser
	$(BIN)/python -m tests.journeys.screenshots

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Whetstone needs Python 3.11 or newer; $(PYTHON) is older. Name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Where there is no NVIDIA GPU, the CPU build of torch first: it is a tenth of the size. Elsewhere, or when its index
# cannot be reached, requirements.txt installs the usual build.
$(VENV)/.run: requirements.txt | $(BIN)/python
	@if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && ! $(BIN)/python -c 'import torch' 2>/dev/null; then \
	  $(BIN)/pip install --quiet --no-deps $(CPU_TORCH) $(TORCH) || echo "No CPU build of torch was found; the usual one follows."; fi
	$(BIN)/pip install --quiet -r requirements.txt
	@touch $@

$(VENV)/.loops: backend/decoder/loops.py backend/decoder/tiles.py backend/decoder/vectors.py $(VENV)/.run
	$(BIN)/python -m backend.decoder.quick
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	$(BIN)/pip install --quiet -r requirements-dev.txt
	@touch $@
