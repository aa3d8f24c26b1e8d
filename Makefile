# `make demo` and `make test` need nothing else: each makes .venv first if it does not exist.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: setup demo test check docs release-check results models constraints clean

# Install the package and the tools of the tests into .venv.
setup: .venv/.test

# Run the whole pipeline on synthetic brains, without data and without a GPU.
demo: .venv/.demo
	$(BIN)/maediff demo -o demo --overwrite

test: .venv/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow or not slow" -q -n 2 --durations=10

check: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Build the documentation site into docs/_build/html; warnings are errors.
docs: .venv/.docs
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html

# Build the wheel, check it, and use it in an empty environment without a network.
release-check: .venv/.test
	$(BIN)/python -m pip install -q -c constraints.txt build twine bids-validator-deno
	$(BIN)/python tools/release_check.py

# Score the shipped models again, about an hour on one CPU core: make results DATA=../shared/data
DATA ?= ../shared/data
results: .venv/.test
	$(BIN)/python experiments/reproduce_results/reproduce_results.py --data $(DATA)

# Train the shipped models again, on a GPU: make models DATA=../shared/data TIME=12m
TIME ?= 12m
models: .venv/.demo
	$(BIN)/python tools/make_models.py --data $(DATA) --max-time $(TIME)

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it with make PYTHON=..."; exit 2; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; echo "On Debian and Ubuntu, venv needs the package python3-venv."; exit 1; }

.venv/.demo: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing maediff into .venv: 2 GB with a CPU build of torch, 6 GB with CUDA; one to several minutes."
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	@touch $@

.venv/.test: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	@touch $@ .venv/.demo

.venv/.docs: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	@touch $@ .venv/.demo

# Update constraints.txt; needs uv. CUDA packages and `+cpu` are removed, because each machine has its own build of torch.
constraints:
	{ sed -n '/^#/p' constraints.txt; uv pip compile --universal --no-emit-index-url --no-header --no-annotate --extra test --extra docs \
	  $(UV_FLAGS) pyproject.toml | grep -vE '^(nvidia-|cuda-|triton)' | sed -E '/^torch==.*\+cpu/d; s/^(torch==[0-9.]+).*/\1/'; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf .venv demo
