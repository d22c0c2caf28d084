# Everything runs in .venv, made from the pinned constraints.txt on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo story test lint format bench pictures lock clean

demo: $(READY)
	$(BIN)/diffharness demo

# A fine-tune that gains on average and loses safety, at the gate.
story: $(READY)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python examples/gate_story.py --light

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m tests.benchmarks.planted --json reports/benchmarks/planted.json
	$(BIN)/python -m tests.benchmarks.recording --json reports/benchmarks/recording.json
	$(BIN)/python -m tests.benchmarks.latents --json reports/benchmarks/latents.json
	$(BIN)/python -m tests.benchmarks.intervals --json reports/benchmarks/intervals.json
	$(BIN)/python -m tests.benchmarks.account --json reports/benchmarks/account.json
	$(BIN)/python -m tests.benchmarks.nulls --json reports/benchmarks/nulls.json
	$(BIN)/python -m tests.benchmarks.gate --json reports/benchmarks/gate.json
	$(BIN)/python -m tests.benchmarks.page --json reports/benchmarks/page.json
	$(BIN)/python -m tests.benchmarks.crosscoder --json reports/benchmarks/crosscoder.json $(if $(PEER),--peer $(PEER))

pictures: $(READY)
	$(BIN)/python -m tests.pictures

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "diffharness needs Python 3.11 or newer; make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# Writes constraints.txt anew from what is installed now.
lock: $(READY)
	{ echo "# Every dependency, direct and transitive, at the version that diffharness is tested with."; \
	  echo "# Made by 'make lock'."; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//'; } > constraints.txt

clean:
	rm -rf $(VENV) dist
