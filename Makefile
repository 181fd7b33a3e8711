# `make demo` and `make test` do all set-up; both can be repeated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# tflite-runtime 2.14 needs NumPy < 2 and Python <= 3.11, so it gets an environment of its own.
VENV_2_14 := .venv-tflite-2.14

.PHONY: help prerequisites setup demo test test-fast types lint format bench clean
help:
	@echo "make demo       set up, restore a simulated scan, judge LiteRT layer by layer"
	@echo "make test       set up, run every test"
	@echo "make test-fast  the tests that are not marked slow"
	@echo "make lint       ruff and mypy"
	@echo "make format     let ruff rewrite the code"
	@echo "make bench      time the oracle beside LiteRT (parity is asserted first)"

# What a user installs; the demonstration needs no more.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[all]'
	touch $@

$(VENV)/.ready: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

$(VENV_2_14)/.ready:
	@$(PYTHON) -m venv $(VENV_2_14) \
	  && $(VENV_2_14)/bin/python -m pip install --quiet 'tflite-runtime==2.14.0' 'numpy<2' \
	  || { rm -rf $(VENV_2_14); mkdir -p $(VENV_2_14); \
	       echo "tflite-runtime 2.14.0 cannot be installed for this Python: its tests will be skipped"; }
	@touch $@

# PyTorch is large and only training needs it: where it cannot be had, everything else is still tested.
$(VENV)/.training: $(VENV)/.ready
	@$(BIN)/python -m pip install --quiet -e '.[training]' \
	  || echo "PyTorch cannot be installed for this Python: tests of training will be skipped"
	@touch $@

prerequisites:
	@PYTHON=$(PYTHON) .ci/prerequisites

setup: prerequisites
	@$(MAKE) --no-print-directory $(VENV)/.ready $(VENV)/.training $(VENV_2_14)/.ready

demo: $(VENV)/.installed
	$(BIN)/karat24 demo --output demo-output

test: setup
	KARAT24_TFLITE_PYTHON=$$(ls $(CURDIR)/$(VENV_2_14)/bin/python 2>/dev/null) $(BIN)/python -m pytest -n auto --dist worksteal

test-fast: setup
	$(BIN)/python -m pytest -n auto --dist worksteal -m 'not slow'

# mypy reads a tree of links in which the rooms lie inside the package, as they do when installed.
types:
	@rm -rf .types && mkdir -p .types/karat24
	@for part in karat24/* refimpl export delegates golden; do ln -s ../../$$part .types/karat24/; done

lint: $(VENV)/.ready types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(VENV_2_14) .types demo-output build *.egg-info
