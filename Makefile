# Two commands are all: `make demo` and `make test`. Each makes .venv first if it is not there.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: demo test check results constraints clean

demo: .venv/.demo
	$(BIN)/maediff demo -o demo --overwrite

test: .venv/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow or not slow" -q -n 2 --durations=10

check: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The tables of docs/results.md that the shipped models make, from the data: make results DATA=../shared/data
DATA ?= ../shared/data
results: .venv/.demo
	$(BIN)/maediff preprocess $(DATA)/lgg/flair.csv -o cohorts/lgg-flair --modality FLAIR --resume
	$(BIN)/maediff preprocess $(DATA)/lgg/t1.csv -o cohorts/lgg-t1 --modality T1w --resume
	$(BIN)/maediff evaluate flair-lgg flair --cohort cohorts/lgg-flair -o runs/results-lgg-flair --overwrite
	$(BIN)/maediff evaluate t1 --cohort cohorts/lgg-t1 -o runs/results-lgg-t1 --overwrite

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it with make PYTHON=..."; exit 2; }
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	@touch $@

.venv/.test: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	@touch $@ .venv/.demo

# Needs uv. `+cpu` is dropped, and so are CUDA's packages: which build of torch a machine gets is its own business.
constraints:
	{ sed -n '/^#/p' constraints.txt; uv pip compile --universal --no-emit-index-url --no-header --no-annotate --extra test \
	  $(UV_FLAGS) pyproject.toml | grep -vE '^(nvidia-|cuda-|triton)' | sed -E '/^torch==.*\+cpu/d; s/^(torch==[0-9.]+).*/\1/'; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf .venv demo
