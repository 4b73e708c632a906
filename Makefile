# The two commands of the README, each doing all its own set-up, and what they are made of.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= auto
PREFIX ?= /opt/edgedr
DESTDIR ?=

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench lock install

help:
	@echo "make demo     back up a real etcd, lose it, get it back, and show it"
	@echo "make test     lint, types, import contracts, all tests"
	@echo "make install  put edgedr into $(PREFIX), linked from /usr/local/bin, with its units"
	@echo "make bench    edgedr beside restic and borg, in one run"

# The locks pin every package with its hashes: requirements.lock what runs, requirements-dev.lock that and what tests.
$(VENV)/ready: requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV) || (rm -rf $(VENV); echo "python3-venv is missing: apt-get install python3-venv"; exit 1)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/ready
	@$(BIN)/python -m tests.demo

test: $(VENV)/ready lint
	$(BIN)/python -m pytest -n $(JOBS)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install:
	$(PYTHON) -m venv $(PREFIX)
	$(PREFIX)/bin/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(PREFIX)/bin/python -m pip install --quiet --no-deps .
	install -d $(DESTDIR)/usr/local/bin $(DESTDIR)/etc/systemd/system
	ln -sf $(PREFIX)/bin/edgedr $(DESTDIR)/usr/local/bin/edgedr
	install -m 644 systemd/edgedr-*.service systemd/edgedr-*.timer systemd/edgedr-*.path $(DESTDIR)/etc/systemd/system/

bench: $(VENV)/ready
	$(BIN)/python -m benchmarks

lock:
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header -c requirements.lock \
		--group dev pyproject.toml -o requirements-dev.lock
