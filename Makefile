# The front door. `make help` lists the targets; each brings what it needs.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
PROFILE ?=
VENV := .venv
BIN := $(VENV)/bin
# A machine with an NVIDIA driver gets the whole stack, any other the subset without CUDA.
LOCK ?= $(if $(shell command -v nvidia-smi 2>/dev/null),requirements.lock,requirements-cpu.lock)
# Nothing is fetched from a model hub unless the profile needs it, and nobody is told what runs here.
export HF_HUB_DISABLE_TELEMETRY := 1
export DVC_NO_ANALYTICS := 1
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: help
help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
