# Two commands on a fresh machine: `make demo` and `make test`. Both make the virtual environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test nightly torture check format docs tools bench bench-peers bench-profile clean

demo: $(VENV)/.runtime
	@exec $(BIN)/tollkeeper demo

test: $(STAMP)
	$(BIN)/python -m pytest

# The same stories, told at length: about a quarter of an hour.
nightly: $(STAMP)
	TOLLKEEPER_RECHUNKINGS=200000 TOLLKEEPER_HOSTILE=20000 TOLLKEEPER_CANCELS=100000 \
	TOLLKEEPER_STALLED_SECONDS=300 TOLLKEEPER_EVENTS=10000 TOLLKEEPER_OUTAGE_STEP=600 \
	$(BIN)/python -m pytest tests/story/test_rechunking.py tests/story/test_hostile_inputs.py \
	tests/story/test_scale.py tests/story/test_billing.py

# Money under kill -9, faults and full disks: about a quarter of an hour. Prints its seed first.
torture: $(STAMP)
	$(BIN)/python tests/torture/run.py
	TOLLKEEPER_OVERSHOOTS=200 $(BIN)/python -m pytest tests/tollkeeper_budgets -k overshoot

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Rewrite what is generated: config.example.toml and the generated parts of docs/reference.
docs: $(STAMP)
	$(BIN)/python docs/generate.py

# What single tests want from Debian and npm. Without it they are skipped, except in CI.
tools:
	for tool in nodejs npm curl chromium; do command -v $${tool%js} >/dev/null || set -- "$$@" $$tool; done; \
		test $$# = 0 || { apt-get update -qq && apt-get install -y -qq "$$@"; }
	npm install --no-audit --no-fund --loglevel=error --prefix tests/node

$(VENV)/.runtime: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(VENV)/.runtime $@

# tollkeeper beside others; wants cc and wrk. Peers are measured where bench-peers installed them.
bench: $(STAMP)
	$(BIN)/python bench/run.py

bench-profile: $(STAMP)
	$(BIN)/python bench/profile.py

bench-peers:
	for tool in wrk nginx nodejs npm; do command -v $${tool%js} >/dev/null || set -- "$$@" $$tool; done; \
		test $$# = 0 || { apt-get update -qq && apt-get install -y -qq "$$@"; }
	$(PYTHON) -m venv bench/.peers/litellm && bench/.peers/litellm/bin/pip install -q 'litellm[proxy]'
	$(PYTHON) -m venv bench/.peers/sglang && bench/.peers/sglang/bin/pip install -q sglang-router
	npm install --no-audit --no-fund --loglevel=error --prefix bench/.peers/portkey @portkey-ai/gateway

clean:
	rm -rf $(VENV) dist build tests/node/node_modules
