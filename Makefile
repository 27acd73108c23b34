# tfwatch. `make help` lists what there is. Everything is installed into .venv, or with apt when this is root.

SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := packaging/scripts/debian-packages
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

# What the pieces need from Debian, as command:package (a leading + is a pkg-config module).
BUILD := gcc:gcc /usr/include/python3.11/Python.h:python3-dev pkg-config:pkg-config +libsystemd:libsystemd-dev
TOOLS := strace:strace rsync:rsync zip:zip 7z:p7zip-full sshd:openssh-server sftp:openssh-client curl:curl \
         openssl:openssl inotifywait:inotify-tools

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit lint types bench clean venv venv-test

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

demo: $(VENV)/.demo ## the main job end to end, with no account anywhere (KEEP=1 leaves it running)
	@$(BIN)/tfwatch demo $(if $(KEEP),--keep)

test: venv-test ## all tests, against real servers on loopback
	@TFWATCH_REQUIRE=$(if $(CI),all) $(BIN)/python -m pytest $(ARGS)

lint: venv-test ## ruff: style and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: venv-test ## mypy --strict
	@$(BIN)/mypy

bench: venv-test ## the figures of tests/bench, as a table and as JSON
	@$(BIN)/python -m tests.bench $(ARGS)

venv: $(VENV)/.base ## only install tfwatch into .venv

venv-test: $(VENV)/.test
	@$(PACKAGES) $(TOOLS) >/dev/null || true

$(VENV)/bin/python:
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(PACKAGES) /nowhere:python3-venv >/dev/null \
		|| { echo "Python's venv module is missing: apt install python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tfwatch needs Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml | $(VENV)/bin/python
	@echo "installing tfwatch into $(VENV) ..."
	@$(PIP) install -e .
	@touch $@

$(VENV)/.demo: $(VENV)/.base
	@$(PIP) install -e '.[demo]'
	@touch $@

# systemd-python is compiled: without its headers the tests that need it say so at the end.
$(VENV)/.test: $(VENV)/.demo
	@echo "installing what the tests need ..."
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install --group test --group lint
	@if $(PACKAGES) $(BUILD) >/dev/null; then $(PIP) install -e '.[systemd]'; \
		else echo "no libsystemd headers: systemd-python is left out"; fi
	@touch $@

clean: ## remove what the targets above made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
