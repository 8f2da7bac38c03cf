# Everything a newcomer needs: `make demo` shows what matloop does, `make test` that it works.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin
DEMO = runs/quickstart
TORCH = torch==2.13.0
PIP = $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: demo test test-all lint docs bench gpaw clean

demo: $(VENV)/installed
	$(BIN)/matloop run workflows/quickstart.yaml --dir $(DEMO) --resume
	$(BIN)/matloop report --dir $(DEMO) -o $(DEMO)/report.html

# One thread per test process: with more, numerical libraries fight over the cores. `test-all` adds
# what is slow, and a cluster of its own: SLURM (Debian: slurm-wlm, munge) with two nodes.
test test-all: export OMP_NUM_THREADS = 1

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "not slow and not slurm" -n 2

test-all: test $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "slow or slurm"

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# DATA names a folder of published tables, which some of the benchmarks need: see CONTRIBUTING.md.
bench: export OMP_NUM_THREADS = 1
bench: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks.relaxation
	$(BIN)/python -m benchmarks.screening
	$(BIN)/python -m benchmarks.funnel
	$(BIN)/python -m benchmarks.orchestration
	$(BIN)/python -m benchmarks.storage
	$(BIN)/python -m benchmarks.ledger
	$(BIN)/python -m benchmarks.proposals
	$(BIN)/python -m benchmarks.stability
	$(BIN)/python -m benchmarks.feedback
ifdef DATA
	$(BIN)/python -m benchmarks.hull_distance --data $(DATA)
	$(BIN)/python -m benchmarks.identity --data $(DATA)
	$(BIN)/python -m benchmarks.hull --data $(DATA)
	$(BIN)/python -m benchmarks.surrogate --data $(DATA)
endif

# A free DFT engine with its PAW data; compiled, so not among the ordinary dependencies.
gpaw: $(VENV)/installed
	.ci/install_gpaw.sh $(VENV)

clean:
	rm -rf site dist runs .mypy_cache .ruff_cache .pytest_cache

# torch first and exactly: a later version pulls gigabytes of CUDA libraries where none are needed.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -c constraints.txt -e ".[dev,docs,cluster,mongo,phonons]"
	touch $@
