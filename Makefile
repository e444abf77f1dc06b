# Every target sets up the virtual environment itself; needs make, a POSIX shell and Python 3.11 or newer.
# Paths are relative, so the clone may lie anywhere, also below a folder with spaces in its name.

PY := .venv/bin/python
READY := .venv/ready
# Tests: what to run instead of the whole suite, such as `make test TESTS="tests/unit -k backoff"`.
TESTS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo run test check bench lock clean

help: ## Print this menu
	@echo "Holdfire: report only the conversions that stuck."
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "The first target takes a minute to set up .venv; after that nothing is downloaded."

demo: $(READY) ## Hold, void, fire and retry 340 orders while workers and broker are killed; then balance the books
	@$(PY) -m holdfire demo

run: $(READY) ## Run everything on this machine and stay up; Ctrl-C ends it cleanly
	@$(PY) -m holdfire up

test: $(READY) ## Run the whole test suite on a real PostgreSQL and Valkey
	@$(PY) -m pytest $(TESTS)

check: $(READY) ## Lint, formatting, types and the import law
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports

bench: $(READY) ## Measure Holdfire beside the tuned Celery recipe and PgQueuer, in one run
	@$(PY) -m tests.benchmarks

lock: $(READY) ## Resolve the dependencies anew and write both lock files
	@test -x .venv/lock/bin/uv || { $(PY) -m venv .venv/lock && .venv/lock/bin/python -m pip install --quiet uv; }
	@for extra in "requirements.lock" "requirements-dev.lock --extra dev"; do \
	    .venv/lock/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header \
	        pyproject.toml --output-file $$extra || exit 1; \
	done
	@echo "Wrote requirements.lock and requirements-dev.lock; the next target installs them."

clean: ## Remove .venv, caches and build products; the ledger in .holdfire stays
	@rm -rf .venv build dist .mypy_cache .ruff_cache .hypothesis .import_linter_cache .benchmarks *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last, so an interrupted setup is taken up again by the next target.
$(READY): requirements-dev.lock pyproject.toml
	@PY="$(PY)" READY="$(READY)" sh .ci/setup
