# Everything a contributor runs. Needs Python 3.11+, make and a package index; the rest comes into .venv by uv.lock.

PYTHON ?= python3
ARGS   ?=
BENCH  ?= all

# where the tests are that start processes: they are found sooner there than among all tests
PROCESSES := tests/integration tests/e2e tests/faults tests/browser
TOGETHER  := --short -n 2 --dist loadfile --no-loadscope-reorder -q -o "testpaths=$(PROCESSES)"

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

# where it is set, each of the processes that a test or a demo starts compiles every module again: three quarters of a start
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo demo-lifecycle demo-replay conformance observe test test-all test-browser test-fast faults soak lint format rivals bench audit ci clean
.NOTPARALLEL:

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## Start everything on this machine and watch it decide (ARGS="--help" lists the options)
	$(BIN)/clipper-stream demo $(ARGS)

demo-lifecycle: $(STAMP) ## A model's life: deployed, compared, promoted, rolled back, retired, while traffic flows
	$(BIN)/python examples/lifecycle/run.py $(ARGS)

demo-replay: $(STAMP) ## A day of traffic is logged, says what would have been better, and that is switched on
	$(BIN)/python examples/replay/run.py $(ARGS)

conformance: $(STAMP) ## Clients in Go, Java and JavaScript, and judges of the gateway, as far as they install (ARGS=--long)
	$(BIN)/python examples/clients/run.py $(ARGS)

observe: $(STAMP) ## The demo's models under endless traffic, with a real Prometheus beside them, until Ctrl-C
	$(BIN)/python deploy/observe/run.py $(ARGS)

test: $(STAMP) ## The tests to run before each change, those without a Kafka first (ARGS="tests/unit -k aimd" for some of them)
	$(BIN)/pytest -m "not (integration or e2e or faults or long or slow)" -n 2 -q $(ARGS) || test $$? = 5 # 5: ARGS selects none
	$(BIN)/pytest -m "(integration or e2e or seeded) and not (long or slow)" $(TOGETHER) $(ARGS) || test $$? = 5

test-all: $(STAMP) ## All tests but the fault suite: benchmarks, rivals, pages, brute force and short faults too (CI runs it)
	$(BIN)/pytest -m "not (integration or e2e or faults or long)" -n 2 -q $(ARGS) || test $$? = 5
	$(BIN)/pytest -m "(integration or e2e or seeded or short) and not long" $(TOGETHER) $(ARGS) || test $$? = 5

test-browser: $(STAMP) ## The console in a real Chromium (Debian: apt install chromium), and the pictures of docs/
	$(BIN)/pytest -m browser -q $(ARGS)

test-fast: $(STAMP) ## Tests that need no Kafka
	$(BIN)/pytest -m "not (integration or e2e or faults or long or slow)" -n 2 -q $(ARGS)

faults: $(STAMP) ## Kill, freeze and cut off processes, and count what was lost: about 75 minutes
	$(BIN)/pytest -m "faults or long" -n 2 --dist loadfile -q $(ARGS)

soak: $(STAMP) ## Half an hour at half of the sustained rate: does anything grow? Writes benchmarks/results/soak.md
	$(BIN)/python benchmarks/soak.py --json benchmarks/results/soak.json --page benchmarks/results/soak.md $(ARGS)

lint: $(STAMP) ## Formatting, lint, import directions, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	@echo "mypy, and pyright beside it"
	@$(BIN)/pyright & $(BIN)/mypy && $(BIN)/mypy --config-file tests/mypy.ini; found=$$?; wait $$! && exit $$found

format: $(STAMP) ## Format, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .

rivals: $(STAMP) ## Install the systems that benchmarks compare with, each into an environment of its own; Java's where mvn is
	cd benchmarks && $(CURDIR)/$(BIN)/python -m rig.contenders

bench: $(STAMP) ## All benchmarks in half an hour, and the pages' figures (ARGS=--long, or BENCH=latency for one, into no page)
	$(BIN)/python benchmarks/$(BENCH).py $(ARGS)

audit: $(STAMP) ## Known vulnerabilities of what uv.lock installs
	$(BIN)/uv export --quiet --frozen --all-extras --no-emit-project --no-hashes --output-file $(VENV)/audited.txt
	$(BIN)/python .ci/audit.py $(VENV)/audited.txt

ci: ARGS += --strict-skips
ci: lint audit test-all ## What the continuous integration runs

clean: ## Remove the environment, caches and local state
	rm -rf $(VENV) data demo-report fault-report dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml uv.lock .ci/install
	@.ci/install $(PYTHON)
	@touch $@
