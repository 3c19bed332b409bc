# What a person runs is what CI runs. Each target sets everything up by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two stamps of one environment: what running needs, and beside it what testing needs.
RUN_STAMP := $(VENV)/.installed-run
STAMP := $(VENV)/.installed
# Beside them, what the benchmarks compare with.
BENCH_STAMP := $(VENV)/.installed-bench
# And what the documentation site is built with.
DOCS_STAMP := $(VENV)/.installed-docs

# An environment of its own with the oldest versions of our requirements, and the tests that run there.
LOWEST := .venv-lowest
LOWEST_TESTS := $(addprefix tests/test_,$(addsuffix .py,public_surface cli hub checkpoints config configuration model \
	layers official decode video_faults sampling inference pipeline tokenizer labels manifest files evaluation explain \
	timeline runtimes online wrappers optim mixing))

.PHONY: demo tiny evidence test test-all test-lowest wheel lint format docs bench clean

$(RUN_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("OpenXCLIP needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	# torch first and pinned, so that no dependency pulls in another build of it
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,serve,tag,search]'
	touch $(RUN_STAMP)

$(STAMP): $(RUN_STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,serve,tag,search,dev]'
	touch $(STAMP)

$(BENCH_STAMP): $(RUN_STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,bench]'
	touch $(BENCH_STAMP)

$(DOCS_STAMP): $(RUN_STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,serve,tag,search,docs]'
	touch $(DOCS_STAMP)

demo: $(RUN_STAMP)  ## recognise clips of classes that the shipped model never saw
	$(BIN)/python scripts/demo.py

tiny: $(RUN_STAMP)  ## train the shipped model anew, into runs/openxclip-tiny; interrupted, it goes on
	$(BIN)/openxclip pretrain --recipe shapes_clip --output runs/tiny-clip
	$(BIN)/openxclip train --recipe shapes --data moving-shapes --output runs/tiny
	$(BIN)/python scripts/package_tiny.py runs/tiny runs/openxclip-tiny

evidence: $(RUN_STAMP)  ## regenerate the learned tables of docs/results.md (takes hours, resumes if interrupted); UCF8=DIR adds real clips
	$(BIN)/python scripts/evidence.py $(if $(UCF8),--ucf8 $(UCF8))

test: $(STAMP)  ## the quick tests
	$(BIN)/python -m pytest -m 'not slow' --quiet --numprocesses auto --maxprocesses 4 --dist loadfile

test-all: $(STAMP)  ## every test, the long ones too
	$(BIN)/python -m pytest

test-lowest:  ## quick tests with the oldest versions that pyproject.toml allows
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct '.[train,serve,tag,search,onnx,openvino]'
	$(LOWEST)/bin/python -m pip install --quiet --upgrade-strategy only-if-needed pytest hypothesis packaging
	$(LOWEST)/bin/python -m pytest -m 'not slow' --quiet -W default $(LOWEST_TESTS)

wheel: $(STAMP)  ## build the package into dist/, and try the wheel in a clean environment
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m pytest --quiet tests/test_wheel.py

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## let ruff rewrite the files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DOCS_STAMP)  ## the documentation site, into site/; a broken link or an undocumented public name is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: $(BENCH_STAMP)  ## ours against the alternatives, on this machine: benchmarks/results/
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(LOWEST) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist demo site
