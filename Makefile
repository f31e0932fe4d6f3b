# For GNU make 3.81 and newer and any POSIX shell. `make help` lists what there is to do.

SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements.lock
PACKAGES := api cli jobstore migrations pals_client pals_core worker
UV := uv==0.13.8

PYTHON_FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -c $(LOCK)
SIZE := about 350 MB

ifeq ($(shell uname -s),Linux)
ifeq ($(PALS_TORCH),cpu)
SIZE := about 450 MB (PyTorch without CUDA)
PIP_INSTALL += --extra-index-url https://download.pytorch.org/whl/cpu
else
SIZE := up to 3 GB (PyTorch with CUDA); PALS_TORCH=cpu makes it about 450 MB
endif
endif

# As the service trains: threads that wait spin briefly (pals_core/openmp.py), memory comes in large pages (heap.py).
BENCHMARK = OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=10000 GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(BIN)/python -m

.PHONY: help demo serve test check acceptance accuracy speed forecast-speed forecast-latency decision-windows equal-error resume chaos reaction queue event-rate checkpoint fuzz-checkpoints lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s  %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "ARGS='...'      further arguments for demo, serve and test"
	@echo "PYTHON=...      the Python to build $(VENV) with: 3.11, 3.12 or 3.13"
	@echo "PALS_TORCH=cpu  on Linux, PyTorch without CUDA: a download of 450 MB instead of 3 GB"

demo: $(VENV)/.runtime ## Train a sparse forecaster on example data and show what came out
	$(BIN)/pals demo $(ARGS)

serve: $(VENV)/.runtime ## Serve the API and one worker on this machine
	$(BIN)/pals serve $(ARGS)

test: $(VENV)/.dev ## Run the tests; they start their own PostgreSQL and Redis
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

check: $(VENV)/.dev ## Check lint, formatting, types and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/lint-imports --no-logo

acceptance: $(VENV)/.dev ## Long: train the two real series in SERIES=folder over HTTP on both stacks
	$(BIN)/python -m benchmarks.acceptance $(SERIES) $(ARGS)

accuracy: $(VENV)/.dev ## Hours: test errors of dense, PALS and GraNet over a grid; goes on where it was stopped
	$(BENCHMARK) benchmarks.accuracy_grid $(SERIES) $(ARGS)

speed: $(VENV)/.dev ## Long: time the parts of a training against a plain PyTorch loop
	$(BENCHMARK) benchmarks.train_speed $(SERIES) $(ARGS)

forecast-speed: $(VENV)/.dev ## Long: time forecasts of sparse checkpoints against the dense network
	$(BENCHMARK) benchmarks.forecast_speed $(SERIES) $(ARGS)

forecast-latency: $(VENV)/.dev ## Minutes: what a caller waits for one forecast over HTTP with a loaded model
	$(BIN)/python -m benchmarks.forecast_latency $(ARGS)

decision-windows: $(VENV)/.dev ## Long: are decisions on a few validation windows those on all of them?
	$(BENCHMARK) benchmarks.decision_windows $(SERIES) $(ARGS)

equal-error: $(VENV)/.dev ## Long: are trainings as good as those of a plain PyTorch loop, in fp32 and in bf16?
	$(BENCHMARK) benchmarks.equal_error $(SERIES) $(ARGS)

resume: $(VENV)/.dev ## Minutes: kill and resume trainings, and compare them byte for byte with uninterrupted ones
	$(BENCHMARK) benchmarks.resume $(ARGS)

chaos: $(VENV)/.dev ## Long: hundreds of faults upon both stacks in use; no job may be lost, doubled or changed
	$(BIN)/python -m benchmarks.chaos $(ARGS)

reaction: $(VENV)/.dev ## Minutes: seconds from POST to training, to cancel, pause, drain, and to notice a killed worker
	$(BIN)/python -m benchmarks.reaction $(ARGS)

queue: $(VENV)/.dev ## Minutes: claims, lists and upkeep beside 10,000 queued jobs on PostgreSQL
	$(BIN)/python -m benchmarks.queue $(ARGS)

event-rate: $(VENV)/.dev ## Minutes: points a second into PostgreSQL, and what telling of each step costs
	$(BIN)/python -m benchmarks.event_rate $(ARGS)

checkpoint: $(VENV)/.dev ## Minutes: size of checkpoint files, time and memory to load them
	$(BENCHMARK) benchmarks.checkpoint $(SERIES) $(ARGS)

fuzz-checkpoints: $(VENV)/.dev ## Minutes: read 20,000 damaged and forged checkpoint files
	$(BIN)/python -W error -m benchmarks.fuzz_checkpoints $(ARGS)

lock: $(VENV)/.python ## Choose the newest versions that fit and write requirements.lock
	$(BIN)/python -m venv build/uv
	build/uv/bin/python -m pip install --quiet --disable-pip-version-check '$(UV)'
	build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-header --no-annotate \
	  --output-file build/resolved.txt pyproject.toml
	grep '^#' $(LOCK) >build/$(LOCK)
	grep -vE '^(nvidia-|cuda-|triton)' build/resolved.txt >>build/$(LOCK)
	mv build/$(LOCK) $(LOCK)

clean: ## Remove caches and build leftovers; the environment in .venv stays
	rm -rf build .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .hypothesis
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# An environment whose Python is gone, or that came here with a moved or copied checkout, is of no use.
ifneq ($(shell $(BIN)/python -c '' 2>/dev/null && cat $(VENV)/.place 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/.python
endif

# Each stamp is written last, so that the next make takes up an installation that was interrupted.
$(VENV)/.python:
	@if [ ! -e $(VENV)/.place ] && $(BIN)/python -c 'import pip; $(PYTHON_FITS)' 2>/dev/null; then \
	  echo "Using the environment that is in $(VENV)"; echo '$(CURDIR)' >$(VENV)/.place; touch $@; exit 0; \
	fi; \
	for python in $(if $(PYTHON),"$(PYTHON)",python3.11 python3.12 python3.13 python3); do \
	  "$$python" -c '$(PYTHON_FITS)' >/dev/null 2>&1 || continue; \
	  if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$python cannot make virtual environments: its venv module is missing." >&2; \
	    echo "On Debian and Ubuntu: sudo apt-get install python3-venv" >&2; \
	    exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$python"; \
	  "$$python" -m venv --clear $(VENV) && echo '$(CURDIR)' >$(VENV)/.place && touch $@; \
	  exit; \
	done; \
	echo "No Python 3.11, 3.12 or 3.13 found$(if $(PYTHON), at $(PYTHON)). Install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
	exit 1

$(VENV)/.runtime: $(VENV)/.python $(LOCK) pyproject.toml
	@echo "Installing the versions in $(LOCK) into $(VENV). Still to download: $(SIZE)."
	$(PIP_INSTALL) setuptools
	$(PIP_INSTALL) --no-build-isolation -e '.[onnx]'
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "Installing what the tests and checks need. Still to download: about 80 MB."
	$(PIP_INSTALL) --no-build-isolation -e '.[dev]'
	@touch $@
