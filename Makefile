# The only commands people type. `make demo` and `make test` work in a fresh clone on a bare machine with Python 3.11+.

SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(firstword $(foreach name,python3.12 python3.13 python3.11 python3,\
    $(shell command -v $(name) >/dev/null && $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
DATA ?= ../shared/data
OUT ?= benchmarks/results
JOBS ?= 2
ONLY ?=
ID ?=
# What the card of the shipped release says of the network that was not chosen; models/README.md has the figures.
REMARK := in short runs on the same tiles the whole Lite0 without a transformer was as good and 1.49 times as fast \
(OpenVINO bf16); in a long run and at the price of the transformer it was worse for cracks and spalling; \
spanwatch train --architecture lite0 makes the other

.PHONY: help demo test check lint learn-test bench gpu-check train kafka java lock clean

help:  ## Show these lines
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: $(VENV)/base  ## Find defects in a sample flight and write out/demo/report.html
	$(BIN)/spanwatch run tests/data/flight --out out/demo --asset sample --drone mixed

test: $(VENV)/test java  ## Everything CI runs: lint, types, unit, contract and system tests
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder
	@echo "left out here: tests/learn (needs torch: make learn-test)"

check: $(VENV)/test lint  ## Format, lint, types and the unit tests
	$(BIN)/python -m pytest -q tests/unit

lint: $(VENV)/test
	$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ."; exit 1; }
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy

kafka: $(VENV)/base java  ## Run Apache Kafka on 127.0.0.1:$PORT (9092) until Ctrl-C; its data stays in out/kafka
	@exec $(BIN)/python -m tests.kafka.broker out/kafka --port $${PORT:-9092}

# A broker needs Java 17 or newer, and Maven. As root they are installed; else the broker, or a test that is skipped
# for want of one, says what is missing.
java:
	@missing=$$(for program in java mvn; do command -v $$program >/dev/null || echo $$program; done); \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing what a broker needs (missing: $$missing)"; \
	  apt-get update -qq && apt-get install -qq -y default-jre-headless maven || echo "not installed"; fi

learn-test: $(VENV)/train  ## The tests that need torch: network, training, export
	$(BIN)/python -m pytest -q tests/learn

bench: $(VENV)/base  ## Measure the whole line on this machine
	$(BIN)/spanwatch bench pipeline

gpu-check:  ## On a box with a graphics card: its tests and figures, into one JSON file in OUT (ONLY=tensorrt: part of it)
	$(if $(wildcard $(BIN)/python),$(BIN)/python,python3) -m benchmarks.gpu --out $(OUT) --only '$(ONLY)'

train: $(VENV)/train  ## Make a release from DATA in two runs of an hour or so (ID= names it); stopped, it goes on where it was
	$(BIN)/spanwatch data convert $(DATA) --out out/data
	$(BIN)/spanwatch data split out/data/manifest.csv --out out/data
	$(BIN)/spanwatch pretrain out/data/train.csv --out out/pretrain --probe out/data/train.csv --id lite0vit2-256.base
	$(BIN)/spanwatch train out/data/manifest.csv --data $(DATA) --base out/pretrain/releases/lite0vit2-256.base --out out/train \
	  --teacher-steps 900 --remark "$(REMARK)" $(if $(ID),--id $(ID))

lock:  ## Compile requirements/*.txt from pyproject.toml (needs uv)
	for part in base test train; do \
	  uv pip compile --universal --python-version 3.11 --no-annotate --custom-compile-command "make lock" \
	    $$([ $$part = base ] || echo --extra $$part) pyproject.toml -o requirements/$$part.txt || exit 1; done

clean:  ## Remove what make has made
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis

# One environment beside the code; each stamp says which requirements it holds.
$(VENV)/base: requirements/base.txt pyproject.toml | $(BIN)/python
	$(PIP) -r requirements/base.txt
	$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/test: requirements/test.txt $(VENV)/base | $(VENV)/tensorrt
	$(PIP) -r requirements/test.txt
	@touch $@

# Bindings alone, beside each other and out of the way: tests compare their stand-in with what is in there, and run nothing.
TENSORRT := 8.6.1:tensorrt-bindings 10.13.3.9:tensorrt-cu12-bindings 11.4.0.106:tensorrt-cu12-bindings

$(VENV)/tensorrt: | $(BIN)/python
	@mkdir -p $@
	@for one in $(TENSORRT); do version=$${one%%:*}; \
	  $(PIP) --no-deps --target $@/$$version $${one##*:}==$$version || echo "TensorRT $$version: no bindings for this Python"; done

$(VENV)/train: requirements/train.txt $(VENV)/test
	$(PIP) -r requirements/train.txt
	@touch $@

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "spanwatch needs Python 3.11 or newer; none is on the PATH"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -qq -y python3-venv; \
	  else echo "the module venv is missing: install python3-venv, then make again"; exit 1; fi; }
	$(PYTHON) -m venv $(VENV)
