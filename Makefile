# tfwatch. `make help` lists what there is. Everything is installed into .venv; as root, what Debian lacks with apt.

SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
DEBIAN := packaging/scripts/debian-packages

# What compiling systemd-python needs, as COMMAND:PACKAGE (a path, or a pkg-config module after a +).
HEADERS = $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')
COMPILER = gcc:gcc $(HEADERS)/Python.h:python3-dev pkg-config:pkg-config +libsystemd:libsystemd-dev
# What the Debian package is made of.
PACKAGED = tfwatch systemd packaging docs config.yaml.example pyproject.toml README.md CHANGELOG.md LICENSE
# The programs that tests run; tests/support/require.py knows them.
TOOLS = $(shell $(BIN)/python -m tests.support.require)

.DEFAULT_GOAL := help
.PHONY: help demo test test-crash test-stress test-power test-system fuzz lint types texts bench soak man dist deb test-deb lock venv clean tools

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

demo: $(VENV)/.demo ## the main job end to end, with no account anywhere (KEEP=1 leaves it running)
	@$(BIN)/tfwatch demo $(if $(KEEP),--keep)

# In CI (CI=1) no test may be skipped for a missing program.
PYTEST = TFWATCH_REQUIRE=$(if $(CI),all) $(BIN)/python -m pytest

test: $(VENV)/.test tools ## all tests but the long ones, against real servers on loopback (ARGS="-k name"; CI=1: none may be skipped)
	@$(PYTEST) -n $(or $(JOBS),4) --dist worksteal $(ARGS)

test-crash: $(VENV)/.test tools ## killed at every system call, failing I/O, power cuts replayed; long (SHARE=20: 1 case in 20; KILLS=2000; JOBS=3)
	@$(PYTEST) $(if $(JOBS),-n $(JOBS) --dist loadfile -rP,-s) tests/crash --share $(or $(SHARE),1) --kills $(or $(KILLS),2000) --hours $(or $(HOURS),0) $(ARGS)

test-stress: $(VENV)/.test tools ## folders that vanish, floods of files, services that misbehave (SHARE=20; PACKAGES=5000)
	@$(PYTEST) -s tests/stress --share $(or $(SHARE),1) --packages $(or $(PACKAGES),5000) $(ARGS)

test-power: $(VENV)/.test tools ## a virtual machine, cut off in mid-work at random (root; CUTS=20)
	@$(PYTEST) -s tests/power --cuts $(or $(CUTS),20) $(ARGS)

# The first test waits for the disk of the container.
test-system: $(VENV)/.test tools dist/.deb ## apt install, upgrade, purge, reboot: on a Debian 12 with systemd, in a container (root)
	@$(PYTEST) -s --timeout 600 --durations=20 --durations-min=3 tests/system $(ARGS)

fuzz: $(VENV)/.test tools ## hostile ZIPs, looked for by chance (FUZZ_SECONDS=600 for each test)
	@$(PYTEST) -s tests/fuzz --fuzz-seconds $(or $(FUZZ_SECONDS),600) $(ARGS)

lint: $(VENV)/.test ## ruff: style and format; hadolint: the container
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/hadolint packaging/container/Containerfile

types: $(VENV)/.test ## mypy --strict
	@$(BIN)/mypy

texts: $(VENV)/.test ## bring the Portuguese catalogue up to the texts in the code; new ones are left empty
	@$(BIN)/python -m tests.support.catalogue

bench: $(VENV)/.bench ## the figures of tests/bench beside their limits and peers (ARGS="throughput --quick --json FILE")
	@$(DEBIAN) curl:curl inotifywait:inotify-tools rclone:rclone
	@$(BIN)/python -m tests.bench $(ARGS)

soak: $(VENV)/.test ## a day's packages, and whether anything grows (MINUTES=20; ARGS="--json FILE")
	@$(BIN)/python -m tests.bench.soak --minutes $(or $(MINUTES),20) $(ARGS)

dist: $(VENV)/.package ## wheel and sdist, in dist/
	@$(BIN)/python -m build --no-isolation --outdir dist .

deb: ## the Debian package, in dist/ (on Debian 12; needs the network once)
	@packaging/scripts/build-deb
	@touch dist/.deb

# For tests: only when something that goes into it has changed.
dist/.deb: $(shell find $(PACKAGED) -type f -not -name '*.pyc')
	@$(MAKE) deb

test-deb: $(VENV)/.test ## the Debian package built twice, in two folders: the same bytes, and nothing in it that should not be
	@$(PYTEST) -s tests/packaging $(ARGS)

lock: $(VENV)/.lock ## packaging/lock/ anew: the newest libraries that pyproject.toml allows, with their hashes
	@packaging/scripts/lock $(BIN)/uv

man: $(VENV)/.base ## manual pages into build/man, completion for shells into build/completion
	@packaging/scripts/reference $(BIN)/python build

venv: $(VENV)/.base ## only install tfwatch into .venv

clean: ## remove what the targets above made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build

# --- what has to be there -----------------------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "tfwatch needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(DEBIAN) :python3-venv \
		|| { echo "Python's venv module is missing: sudo apt install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.base: pyproject.toml | $(BIN)/python
	@echo "installing tfwatch into $(VENV) ..."
	@$(PIP) install -e .
	@touch $@

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "installing tfwatch and a local S3 server into $(VENV), about a minute ..."
	@$(PIP) install -e '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	@echo "installing tfwatch and what its tests need into $(VENV), about two minutes ..."
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install -e '.[alerts,demo]' --group test --group lint
	@touch $(VENV)/.demo $@

$(VENV)/.package: packaging/lock/build.txt | $(BIN)/python
	@$(PIP) install --require-hashes -r packaging/lock/build.txt
	@touch $@

$(VENV)/.lock: | $(BIN)/python
	@$(PIP) install uv
	@touch $@

$(VENV)/.bench: pyproject.toml | $(VENV)/.test
	@$(PIP) install --group bench
	@touch $@

# Not a stamp: what this user may not install stays missing, and the tests that need it say so at the end.
tools: $(VENV)/.test
	@$(DEBIAN) $(TOOLS) || true
	@$(BIN)/python -c 'import systemd.daemon' 2>/dev/null || ! $(DEBIAN) $(COMPILER) || $(PIP) install -e '.[systemd]'
