# Two commands are all: `make demo` and `make test`. Each makes .venv first if it is not there.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: demo test check results models constraints clean

demo: .venv/.demo
	$(BIN)/maediff demo -o demo --overwrite

test: .venv/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow or not slow" -q -n 2 --durations=10

check: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The table of what is shipped (docs/results.md), from weights and data, about an hour on a core: make results DATA=../shared/data
DATA ?= ../shared/data
MS := $(DATA)/mslub/patient07
results: .venv/.demo
	$(BIN)/maediff preprocess $(DATA)/lgg/t1.csv -o cohorts/lgg-t1 --modality T1w --like t1 --resume
	$(BIN)/maediff evaluate t1 --cohort cohorts/lgg-t1 -o runs/results-lgg-t1 --overwrite
	$(BIN)/maediff preprocess $(DATA)/lgg/flair.csv -o cohorts/lgg-flair --modality FLAIR --like flair --resume
	$(BIN)/maediff evaluate flair-lgg flair --cohort cohorts/lgg-flair -o runs/results-lgg-flair --overwrite
	test -e cohorts/t2-like || $(BIN)/python experiments/make_pseudo_t2.py $(MS) $(DATA)/lgg/flair.csv $(DATA)/lgg/t1.csv cohorts/t2-like-scans
	$(BIN)/maediff preprocess cohorts/t2-like-scans/manifest.csv -o cohorts/t2-like --modality T2w --like t2 --resume
	$(BIN)/maediff evaluate t2 --cohort cohorts/t2-like --score-split val --calibrate-split val -o runs/results-t2-like --overwrite
	test -e cohorts/phantoms || $(BIN)/python tools/make_phantoms.py cohorts/phantom-scans T2w 0 16 16 4 4
	$(BIN)/maediff preprocess cohorts/phantom-scans/manifest.csv -o cohorts/phantoms --modality T2w --like t2 --resume
	$(BIN)/maediff evaluate t2 --cohort cohorts/phantoms -o runs/results-phantoms --overwrite
	for one in T1:T1w:t1 FLAIR:FLAIR:flair T2:T2w:t2; do set -- $$(echo $$one | tr : ' ') && \
	  printf 'subject,image,lesion_mask,split,healthy\npatient07,%s,%s,val,0\n' $(abspath $(MS))/$$1.nii.gz $(abspath $(MS))/lesion_mask.nii.gz \
	    > cohorts/ms-$$3.csv && \
	  $(BIN)/maediff preprocess cohorts/ms-$$3.csv -o cohorts/ms-$$3 --modality $$2 --like $$3 --resume && \
	  $(BIN)/maediff evaluate $$3 --cohort cohorts/ms-$$3 --score-split val --calibrate-split val -o runs/results-ms-$$3 --overwrite || exit 1; done

# The shipped models trained anew, into runs/models (docs/models.md), for a GPU; TIME=30s shows that it runs: make models DATA=../shared/data
TIME ?= 12m
models: .venv/.demo
	$(BIN)/maediff preprocess $(DATA)/ds002748 $(DATA)/ds000011 -o cohorts/t1 --modality T1w --like t1 --resume
	for one in FLAIR:flair T2w:t2:$(DATA)/ds000011; do set -- $$(echo $$one | tr : ' ') && contrast=$$1 name=$$2 real=$$3 && scans=cohorts/$$name-scans && phantoms=cohorts/$$name-phantoms && \
	  { test -e $$scans/manifest.csv || $(BIN)/python tools/render_contrast.py $(DATA)/ds002748 $$scans $$contrast --n 2 --overwrite; } && \
	  { test -e $$phantoms/manifest.csv || { rm -rf $$phantoms && $(BIN)/python tools/make_phantoms.py $$phantoms $$contrast 24 0 0 4 0; }; } && \
	  $(BIN)/maediff preprocess $$scans/manifest.csv $$phantoms/manifest.csv $$real -o cohorts/$$name --modality $$contrast --like $$name --resume || exit 1; done
	$(BIN)/maediff preprocess $(DATA)/lgg/flair.csv -o cohorts/lgg-flair --modality FLAIR --like flair --resume
	for one in t1:t1 flair:flair t2:t2 flair-lgg:lgg-flair; do set -- $$(echo $$one | tr : ' ') && \
	  $(BIN)/python tools/remake_model.py $$1 cohorts/$$2 runs/models --max-time $(TIME) || exit 1; done

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
