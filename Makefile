# Everything runs in .venv, which each target creates if needed.
PYTHON ?= python3
BIN := .venv/bin
# bytecode is compiled at the first import: most modules are never imported
PIP := $(BIN)/pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt
JOBS ?= $(shell nproc 2>/dev/null || echo 1)

.PHONY: setup study study-detection test test-slow bench lint results

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[dev]'
	touch $@

study: .venv/installed
	$(BIN)/reslab study degradation --jobs $(JOBS) --out studies/degradation-digits

# COCO's metric is computed by its authors' code
.venv/installed-detect: .venv/installed
	$(PIP) --editable '.[detect]'
	touch $@

study-detection: .venv/installed-detect
	$(BIN)/reslab study detection --jobs $(JOBS) --out studies/detection-digit-scenes

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python

# lint runs alongside the tests; its output is printed after theirs
test: .venv/installed-dev
	@$(MAKE) --no-print-directory lint > .venv/lint.log 2>&1 & lint=$$!; \
	$(BIN)/pytest --numprocesses $(JOBS) --dist worksteal --durations=20; tests=$$?; \
	wait $$lint; status=$$?; cat .venv/lint.log; exit $$((tests || status))

test-slow: lint
	$(BIN)/pytest -m slow

# at most twelve minutes; `.venv/bin/pip install onnx onnxruntime openvino` adds these peers
bench: .venv/installed
	$(BIN)/python benchmarks/bench.py

# docs/results.md links these pages; the runs in docs/runs are kept without weights and checkpoints
results: .venv/installed-detect
	$(BIN)/reslab report docs/runs/digits-* --out docs/results/digits
	$(BIN)/reslab report docs/runs/cifar10-* --out docs/results/cifar10
	$(BIN)/reslab report docs/runs/h100-* --out docs/results/h100
	$(BIN)/reslab report src/reslab/pretrained/*-* --out docs/results/pretrained
	$(BIN)/reslab report docs/runs/detection-* --out docs/results/detection
