# closeup-ns: `make demo` and `make test` each set up .venv from nothing and then do their job.
# Needs a Linux with python 3.10 to 3.12 (with its venv module), a C++ compiler, and a package index or mirror.

VENV := .venv
BIN := $(VENV)/bin
# 3.11 first: it is the version that is tested most.
PYTHON ?= $(firstword $(foreach v,3.11 3.12 3.10,$(shell command -v python$(v) 2>/dev/null)) python3)
# The installer's version stands where every other version does.
UV := $(shell grep -o '^uv==[0-9.]*' requirements.lock)
STAMP := $(VENV)/.closeup-synced
KERNELS := $(wildcard closeup_ns/rendering/csrc/* closeup_ns/rendering/csrc/*/*)
# Each worker imports torch and nerfstudio (about 1 GB), so no more than four of them.
TEST_JOBS ?= $(shell n=$$(nproc); [ $$n -gt 4 ] && echo 4 || echo $$n)
PYTEST_ARGS ?=

# Tests and the demo run offline, without torch.compile (half a minute per process), and with threads that sleep
# while they wait: on a shared machine spinning threads are slower by far.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export TORCH_COMPILE_DISABLE := 1
export OMP_WAIT_POLICY := passive
export MPLBACKEND := Agg
export WANDB_MODE := offline
# The installer's own certificates do not know a company's proxy; the system's do, as pip's do.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS := 1
endif
OFFLINE := HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1

.DEFAULT_GOAL := help
.PHONY: help setup test test-fast check-neon sanitize fuzz soak demo lint format wheel bench lock clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  make %-10s %s\n' "$$name" "$$text"; done

setup: $(STAMP)  ## .venv with the locked versions and closeup-ns itself; at once when nothing changed

$(BIN)/uv: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' || \
		{ echo 'closeup-ns needs Python 3.10, 3.11 or 3.12: make setup PYTHON=/path/to/python3.11' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo 'The venv module is missing: apt-get install python3-venv' >&2; rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(UV)'
	@touch $@

$(STAMP): $(BIN)/uv requirements.lock pyproject.toml $(wildcard setup.py) $(KERNELS)
	$(BIN)/uv pip sync --python $(BIN)/python --compile-bytecode requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@command -v ffmpeg >/dev/null || ln -sf \
		"$$($(BIN)/python -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())')" $(BIN)/ffmpeg
	@touch $@

test: $(STAMP)  ## every test, those that run the ns-* commands included
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile $(PYTEST_ARGS)

test-fast: $(STAMP)  ## the tests that take seconds
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile \
		-m 'not slow and not integration' $(PYTEST_ARGS)

check-neon: $(STAMP)  ## the kernels for 64-bit ARM, in qemu: apt-get install g++-aarch64-linux-gnu qemu-user
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/rendering/test_lanes.py tests/rendering/test_arm.py \
		$(PYTEST_ARGS)

sanitize: $(STAMP)  ## the CPU kernels under the address, leak and undefined-behaviour sanitizers
	$(BIN)/python tests/rendering/sanitize.py

fuzz: $(STAMP)  ## FUZZ_FILES=10000 damaged files through every reader, FUZZ_EXAMPLES=2000 random scenes per kernel test
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.integration.fuzz $(or $(FUZZ_FILES),10000)
	$(OFFLINE) OMP_NUM_THREADS=1 CLOSEUP_FUZZ=$(or $(FUZZ_EXAMPLES),2000) $(BIN)/python -m pytest \
		--timeout=0 tests/rendering/test_fuzz.py $(PYTEST_ARGS)

soak: $(STAMP)  ## SOAK_KILLS=60 kills of tiny trainings at random instants, each resumed; nothing may be lost or repeated
	$(OFFLINE) OMP_NUM_THREADS=1 nice -n 19 $(BIN)/python -m tests.integration.soak $(or $(SOAK_KILLS),60)

demo: $(STAMP)  ## a scene with its close-ups, from nothing to before-and-after pictures
	$(OFFLINE) $(BIN)/closeup-gs demo $(DEMO_ARGS)

lint: $(STAMP)  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(STAMP)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(STAMP)  ## dist/*.whl
	$(BIN)/python -m build --wheel --no-isolation

bench: $(STAMP)  ## the benchmarks; each prints ratios measured in one run on this machine
	@set -e; for file in $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)); do \
		echo "== $$file"; $(BIN)/python -m "benchmarks.$$(basename $$file .py)"; done

lock: $(BIN)/uv  ## resolve requirements.lock anew, keeping the versions that still fit
	$(BIN)/uv pip compile pyproject.toml requirements.in --universal --python-version 3.10 --all-extras \
		--no-annotate --no-header --no-python-downloads --output-file requirements.lock
	@sed -i '1i # Exact versions of everything, for Python 3.10 to 3.12; written by `make lock`, installed by `make setup`.' \
		requirements.lock

clean:  ## remove what the build and the tests left, .venv excepted
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
