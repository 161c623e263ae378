# Everything runs in .venv, which the first target that needs it makes. Nothing else is installed.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test test-all test-vault long test-postgresql outages faults fleet soak soak-state mutants races check bench bench-keep fuzz format schemas lock wheel clean

$(STAMP): requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "jitvault needs Python 3.11 or newer with venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)
	$(BIN)/jitvault demo

# without servers, every command, and one test on servers for each promise of the threat model (tests/tiers.py)
test: $(STAMP)
	$(BIN)/python -m pytest -m "not long and not thorough"

# everything but `make long`, some twenty-five minutes on two cores
test-all: $(STAMP)
	$(BIN)/python -m pytest

# the same on another server: an OpenBao or a HashiCorp Vault of yours, SERVER=/path/to/vault
test-vault: $(STAMP)
	@test -n "$(SERVER)" || { echo "say which server: make test-vault SERVER=/path/to/vault"; exit 2; }
	JITVAULT_SANDBOX_SERVER="$(SERVER)" $(BIN)/python -m pytest $(TESTS)

# what the suite leaves out, since something shorter in it looks at the same or it is not steady yet: some six minutes
long: $(STAMP)
	$(BIN)/python -m pytest -m long

# the same with the ledgers of all tests on PostgreSQL, some twenty minutes; what lays hands on a SQLite file is skipped
test-postgresql: $(STAMP)
	JITVAULT_TEST_LEDGER=postgresql $(BIN)/python -m pytest

# every moment of an outage that the tests know, and more of them in a row: some fifteen minutes
outages: $(STAMP)
	JITVAULT_TEST_ALL_OUTAGES=1 JITVAULT_TEST_SEEDS=20 $(BIN)/python -m pytest tests/integration/test_outages_*.py

# every point at which a command can die by SIGKILL: some thirty minutes
faults: $(STAMP)
	JITVAULT_TEST_ALL_POINTS=1 $(BIN)/python -m pytest -o timeout=0 tests/integration/test_crash*.py \
		tests/integration/test_recover.py

# acts, deaths and outages at random, for SOAK_SECONDS; SOAK_SEED plays a round again that it named
SOAK_SECONDS ?= 600
soak-state: $(STAMP)
	SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -n 0 -s -o timeout=0 tests/integration/test_state_machine.py

# two workers and FLEET_TASKS tasks on PostgreSQL, one of the two killed every FLEET_KILL_SECONDS: some ten minutes
FLEET_TASKS ?= 1000
FLEET_KILL_SECONDS ?= 5
fleet: $(STAMP)
	FLEET_TASKS=$(FLEET_TASKS) FLEET_KILL_SECONDS=$(FLEET_KILL_SECONDS) $(BIN)/python -m pytest -n 0 -s \
		tests/integration/test_fleet.py

# workers under a steady load for SOAK_SECONDS, then until all of it is sealed; SOAK_LEDGER=sqlite has one worker
soak: $(STAMP)
	SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -n 0 -s tests/integration/test_soak.py

# break each check once, in a copy, and see its tests turn red; MUTANTS="traces quiet" takes some of them
mutants: $(STAMP)
	PYTHONPATH=.:tests $(BIN)/python -m mutants $(MUTANTS)

# six readers while their task is revoked, thirty times
races: $(STAMP)
	JITVAULT_TEST_REVOCATIONS=30 $(BIN)/python -m pytest -n 0 tests/integration/test_in_flight.py

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m jitvault.schemas --check

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schemas: $(STAMP)
	$(BIN)/python -m jitvault.schemas

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# one worker that keeps KEEP_TASKS tasks alive: as long as it takes to grant them, and 150 s
KEEP_TASKS ?= 10000
bench-keep: $(STAMP)
	KEEP_TASKS=$(KEEP_TASKS) $(BIN)/python -m benchmarks --only keep

# one minute, or FUZZ_SECONDS; what it finds goes to build/fuzz
FUZZ_SECONDS ?= 60
fuzz: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/fuzz.txt
	mkdir -p build/fuzz
	PYTHONPATH=.:tests $(BIN)/python tests/fuzz/audit_lines.py -max_total_time=$(FUZZ_SECONDS) -max_len=20000 \
		-timeout=20 -dict=tests/fuzz/words.dict -artifact_prefix=build/fuzz/ -print_final_stats=1 \
		build/fuzz tests/fuzz/corpus

wheel: $(STAMP)
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

lock: $(STAMP)
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe --no-header \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--all-extras --output-file requirements/dev.txt pyproject.toml requirements/dev.in

clean:
	rm -rf .venv build dist
