# Everything below needs only git, make and Python 3.11 to 3.13.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

PINS   := --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
          --no-emit-find-links --quiet
# What images install, at the pins of requirements.lock. NVIDIA's library for training on several
# machines is as large as all the rest, and loaded by nobody else.
IMAGE  := $(PINS) --constraints requirements.lock --no-annotate \
          --custom-compile-command 'make lock' \
          --no-emit-package nvidia-nccl-cu12 --no-emit-package nvidia-nccl-cu13
EXTRAS := --extra postgres --extra otel --extra signing

.PHONY: help setup demo test lint bench docs site audit lock clean
help:            ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(READY)  ## make the virtual environment from the lock

# uv installs the lock in seconds; where its own set-up cannot reach a registry, pip (whose
# settings a machine is more likely to have) installs the same pinned, hashed files. All is compiled,
# ours too: where Python may write no bytecode itself (PYTHONDONTWRITEBYTECODE) each process would
# compile what it imports, which was two thirds of a run of a flow.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes --no-deps \
	  -r requirements.lock \
	  || $(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q perennial tasks flows deployments
	@touch $(READY)

demo: $(READY)   ## a year of flights: train, replay, retrain, refuse (FLAGS=--quick for a short one)
	$(BIN)/perennial demo $(FLAGS)

test: $(READY)   ## the whole test suite
	$(BIN)/python -m pytest $(FLAGS)

lint: $(READY)   ## style, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## the benchmarks, as ratios (benchmarks/README.md)
	$(BIN)/python -m benchmarks $(FLAGS)

docs: $(READY)   ## write the generated reference pages and prefect.yaml anew
	$(BIN)/python -m docs.generate

site: $(READY)   ## the docs as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

audit: $(READY)  ## known vulnerabilities of what is pinned
	$(BIN)/python .ci/audit.py

lock: $(READY)   ## resolve the pins anew, of the environment and of the images
	$(BIN)/uv pip compile $(PINS) --upgrade --extra dev pyproject.toml \
	  --output-file requirements.lock
	$(BIN)/uv pip compile $(IMAGE) --upgrade --extra serving $(EXTRAS) pyproject.toml \
	  --output-file requirements-serving.lock
	$(BIN)/uv pip compile $(IMAGE) --upgrade --extra pipeline --extra dask --extra mlflow $(EXTRAS) \
	  pyproject.toml --output-file requirements-pipeline.lock
	echo hatchling | $(BIN)/uv pip compile $(IMAGE) --upgrade - --output-file requirements-build.lock

clean:           ## remove the environment and all local state
	rm -rf $(VENV) .perennial .pytest_cache .mypy_cache .ruff_cache
