# Each command does all its own set-up in a virtual environment.
#   make tour     pictures and a page of the bundled network, in tour/tour.html
#   make test     build, install and run every test; with PYTEST="-n 2 --dist loadfile", in two processes
#   make quick    the tests that take no time, in about a minute on two cores
#   make gallery  every picture of README.md and docs/, in docs/pictures; those of the explorer want chromium
# TORCH chooses the build of torch: make test TORCH="torch==2.13.0"

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch>=2.11
TESTS ?= tests
PYTEST ?=
EXTRAS ?= test
OUT ?= tour

BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(wildcard csrc/*) $(shell find linscope_cuda -name '*.py' -o -path '*/data/*' -o -path '*/front/*')

NATIVE := $(wildcard csrc/* tests/emulator/*.h tests/emulator/*.cpp tests/emulator/kernels/* tools/*.cu)

.PHONY: tour test quick gallery gpu install lint format clean

tour: $(VENV)/installed
	$(BIN)/linscope tour --out $(OUT)

test: $(VENV)/installed
	$(BIN)/pytest $(PYTEST) $(TESTS)

quick: $(VENV)/installed
	$(BIN)/pytest -n 2 -m "not slow and not network and not cuda" $(TESTS)

gallery: $(VENV)/installed
	$(BIN)/python tools/gallery.py
	$(BIN)/python tools/explorer_pictures.py

gpu:
	$(PYTHON) tools/gpu.py

install: $(VENV)/installed

# Without build isolation, so that the operators are compiled against the torch they will run with.
$(VENV)/installed: $(SOURCES)
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH) 'setuptools>=77' wheel 'pybind11>=2.13' ninja
	$(BIN)/pip install --quiet --no-build-isolation '.[$(EXTRAS)]'
	touch $@

lint: $(VENV)/installed
	$(BIN)/pip install --quiet ruff pyright clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)

format:
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE)

clean:
	rm -rf $(VENV) build *.egg-info $(OUT)
