# Everything runs in .venv, which the first target that needs it makes. Nothing else is installed.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
STAMP := .venv/.installed
# the agent frameworks of docs/examples/frameworks, which jitvault's own tools need not agree with
FRAMEWORKS := .venv/frameworks

.PHONY: demo test test-all foreign recorded frameworks test-vault test-postgresql outages gateway faults fleet shadow soak soak-state mutants races check check-style check-types check-layout bench bench-keep fuzz format schemas lock recording wheel clean

PIP := $(BIN)/python -m pip --disable-pip-version-check

# pip's own lines are hundreds: one in twenty packages shows that it goes on; its errors are on stderr
$(STAMP): requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "jitvault needs Python 3.11 or newer with venv"; exit 1; }
	@echo "Installing into .venv, once: a minute or less"
	@echo "  1 of 3  an environment of its own ($$($(PYTHON) --version))"
	@$(PYTHON) -m venv .venv
	@echo "  2 of 3  $$(grep -c == requirements/dev.txt) packages, each by its hash"
	@rm -f $@; { $(PIP) install --progress-bar off --require-hashes -r requirements/dev.txt && touch $@; } | { n=0; beat=; \
	while read -r word rest; do case "$$word $$rest" in \
		Collecting*) n=$$((n + 1)); test $$((n % 20)) -ne 0 || echo "          $$n are here" ;; \
		"Installing collected"*) echo "          all $$n are here; unpacking them"; \
			( while sleep 10 >/dev/null 2>&1; do echo "          still unpacking"; done ) & beat=$$! ;; esac; done; \
	test -z "$$beat" || kill $$beat; }; test -e $@ && rm -f $@
	@echo "  3 of 3  jitvault itself"
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(FRAMEWORKS)/.installed: requirements/frameworks.txt pyproject.toml | $(STAMP)
	@echo "Installing agent frameworks into $(FRAMEWORKS), once: half a minute"
	@$(BIN)/python -m venv --without-pip $(FRAMEWORKS)
	@$(PIP) --python $(FRAMEWORKS) install --quiet --progress-bar off --require-hashes -r requirements/frameworks.txt
	@$(PIP) --python $(FRAMEWORKS) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)
	$(BIN)/jitvault demo

# all tests without servers, with fewer examples, every command, and one server test for each promise of the threat model
# (tests/tiers.py)
test: $(STAMP)
	$(BIN)/python -m pytest -m "not thorough" --hypothesis-profile=short

# everything: about an hour on two cores
test-all: $(STAMP) frameworks
	$(BIN)/python -m pytest

# what the recipes for agent frameworks run in; without it their tests are skipped
frameworks: $(FRAMEWORKS)/.installed

# test-all on an OpenBao or HashiCorp Vault of yours: SERVER=/path/to/vault, TESTS="FILE ..." for some of it
test-vault: $(STAMP)
	@test -n "$(SERVER)" || { echo "SERVER is not set: make test-vault SERVER=/path/to/vault"; exit 2; }
	JITVAULT_SANDBOX_SERVER="$(SERVER)" $(BIN)/python -m pytest $(TESTS)

# test-all with every ledger on PostgreSQL, about 20 minutes; tests that edit a SQLite file are skipped
test-postgresql: $(STAMP)
	JITVAULT_TEST_LEDGER=postgresql $(BIN)/python -m pytest

# every moment of an outage that the tests know, and more outages in a row: about 15 minutes
outages: $(STAMP)
	JITVAULT_TEST_ALL_OUTAGES=1 JITVAULT_TEST_SEEDS=20 $(BIN)/python -m pytest \
		$(filter-out %_gateway.py,$(wildcard tests/integration/test_outages_*.py))

# each lie of a gateway at each request of a grant, a renewal and an end: 238 lives of a task
gateway: $(STAMP)
	JITVAULT_TEST_ALL_OUTAGES=1 $(BIN)/python -m pytest tests/integration/test_outages_gateway.py

# SIGKILL at every point of a command: about 30 minutes
faults: $(STAMP)
	JITVAULT_TEST_ALL_POINTS=1 $(BIN)/python -m pytest -o timeout=0 tests/integration/test_crash*.py \
		tests/integration/test_recover.py

# random acts, kills and outages for SOAK_SECONDS; SOAK_SEED repeats a round by the seed that it printed
SOAK_SECONDS ?= 600
soak-state: $(STAMP)
	SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -n 0 -s -o timeout=0 \
	  tests/integration/test_state_machine.py tests/integration/vaults_form/test_state_machine_again.py

# two workers of two processes and FLEET_TASKS tasks on PostgreSQL; every FLEET_KILL_SECONDS a process is killed
FLEET_TASKS ?= 1000
FLEET_KILL_SECONDS ?= 5
fleet: $(STAMP)
	FLEET_TASKS=$(FLEET_TASKS) FLEET_KILL_SECONDS=$(FLEET_KILL_SECONDS) $(BIN)/python -m pytest -n 0 -s \
		tests/integration/test_fleet.py

# workers under a steady load for SOAK_SECONDS, then until every task is sealed; SOAK_LEDGER=sqlite runs one worker
soak: $(STAMP)
	SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -n 0 -s tests/integration/test_soak.py

# tasks under a worker while an administrator changes what it goes by: every fact is read fresh as well and compared
SHADOW_SECONDS ?= 600
shadow: $(STAMP)
	SHADOW_SECONDS=$(SHADOW_SECONDS) $(BIN)/python -m pytest -n 0 -s -o timeout=0 tests/integration/test_shadow.py

# break each check once, in a copy: its tests have to fail; MUTANTS="traces quiet" runs only these
mutants: $(STAMP)
	PYTHONPATH=.:tests $(BIN)/python -m mutants $(MUTANTS)

# revoke a task while six clients read with it, thirty times
races: $(STAMP)
	JITVAULT_TEST_REVOCATIONS=30 $(BIN)/python -m pytest -n 0 tests/integration/test_in_flight.py

check: check-style check-types check-layout

check-types: $(STAMP)
	$(BIN)/mypy

check-style: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-layout: $(STAMP)
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q -n 0 tests/unit/test_layout.py
	$(BIN)/python -m jitvault.schemas --check

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schemas: $(STAMP)
	$(BIN)/python -m jitvault.schemas

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# a receipt of real servers, verified by openssl and by cosign, which is built where Go is at hand: minutes the first time
foreign: $(STAMP)
	PYTHONPATH=.:tests $(BIN)/python -m foreign

# the receipts and audit lines on which the verifiers' unit tests run, anew from real servers
recorded: $(STAMP)
	PYTHONPATH=.:tests $(BIN)/python -m record_receipts

# one worker renews KEEP_TASKS tasks, is killed, loses Vault for a minute, restarts, and all are revoked: takes as long as
# granting them, and some twelve minutes
KEEP_TASKS ?= 10000
bench-keep: $(STAMP)
	KEEP_TASKS=$(KEEP_TASKS) KEEP_TRIALS=1 $(BIN)/python -m benchmarks --only keep

# fuzz the audit reader for FUZZ_SECONDS; failing inputs go to build/fuzz
FUZZ_SECONDS ?= 60
fuzz: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/fuzz.txt
	mkdir -p build/fuzz
	PYTHONPATH=.:tests $(BIN)/python tests/fuzz/audit_lines.py -max_total_time=$(FUZZ_SECONDS) -max_len=20000 \
		-timeout=20 -dict=tests/fuzz/words.dict -artifact_prefix=build/fuzz/ -print_final_stats=1 \
		build/fuzz tests/fuzz/corpus

# the README's recording of the demo, for a terminal of 80 columns
recording: $(STAMP)
	$(BIN)/python docs/recording/record.py docs/recording/demo.svg $(BIN)/jitvault demo

wheel: $(STAMP)
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

COMPILE := $(BIN)/pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
lock: $(STAMP)
	$(COMPILE) --all-extras --output-file requirements/dev.txt pyproject.toml requirements/dev.in
	$(COMPILE) --extra postgres --output-file requirements/frameworks.txt pyproject.toml requirements/frameworks.in

clean:
	rm -rf .venv build dist
