.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
HOSTS := cornac lenskit ray rectools s3 spark
PIN_cornac := cornac==3.0.1
PIN_lenskit := lenskit==2025.8.1
PIN_ray := ray[data]==2.60.0 pyarrow
PIN_rectools := rectools==0.19.0
PIN_s3 := s3fs==2026.9.0 moto[server]==5.2.5
PIN_spark := pyspark==4.1.4 pandas pyarrow

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("mecold needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Pass one with: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	@# torch first and alone: asked for by another package, it may come as a CUDA build of several gigabytes
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[cpu,bundled,evaluate,dev]'
	@touch $@

demo: $(STAMP)  ## set up and run the main job on a generated shop
	$(BIN)/mecold demo

test: $(STAMP)  ## set up and run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

hosts: $(HOSTS)  ## test the adapters whose hosts need an environment of their own, and run their examples

$(HOSTS): %: .venv-%/.installed
	.venv-$*/bin/python -m pytest tests/hosts/test_$*.py
	for example in $(wildcard examples/hosts/$*_*.py); do .venv-$*/bin/python $$example || exit 1; done

.venv-%.pin: FORCE  # another host's version or another Python makes the environment anew
	@echo "$(PYTHON) $(PIN_$*)" | cmp -s - $@ || echo "$(PYTHON) $(PIN_$*)" > $@

.venv-%/.installed: pyproject.toml constraints.txt Makefile .venv-%.pin
	$(PYTHON) -m venv --clear .venv-$*
	.venv-$*/bin/pip install --quiet -c constraints.txt torch
	.venv-$*/bin/pip install --quiet -e '.[bundled]' $(PIN_$*) beartype hypothesis pytest
	@touch $@

check: $(STAMP)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## measure speed; prints what bench/RESULTS.md records
	$(BIN)/python bench/adapt.py
	$(BIN)/python bench/search.py
	$(BIN)/python bench/encode.py
	$(BIN)/python bench/metrics.py

soak: $(STAMP)  ## ten minutes of readers, writers, saves, loads, forks and kills at once
	$(BIN)/python bench/soak.py

clean:  ## remove the environment and caches
	rm -rf $(VENV) $(HOSTS:%=.venv-%) $(HOSTS:%=.venv-%.pin) .mypy_cache .pytest_cache .ruff_cache dist

.PHONY: help demo test hosts $(HOSTS) check bench soak clean FORCE
.PRECIOUS: .venv-%/.installed .venv-%.pin
