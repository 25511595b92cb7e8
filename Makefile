# Everything runs from .venv, which the first target that needs it makes. ARGS="..." is passed on.

ARGS =
# How many processes run the tests beside pytest's own, which with 0 runs them itself.
WORKERS = 2
# What development needs of the extras: all but litellm, which weighs as much as all others together.
EXTRAS = embedded gateway semantic postgres redis migrate parquet learn
PYTHON_IN = .venv/bin/python
UV_PIP = $(PYTHON_IN) -m uv pip
INSTALL = $(UV_PIP) install --python $(PYTHON_IN) --no-deps
COMPILE = $(UV_PIP) compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links $(ARGS)

# Another environment that happens to be active must not leak in. Nor must a wish for no bytecode: every process that a
# test starts would compile all that it imports.
unexport VIRTUAL_ENV CONDA_PREFIX PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL = help
.DELETE_ON_ERROR:
.PHONY: help setup run test check lint bench bench-compare soak evidence docs lock clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.dev ## Set up for development: .venv with everything the tests need

run: .venv/.run ## Run the main job: triage the example messages on the embedded model
	@$(PYTHON_IN) examples/triage/run.py $(ARGS)

test: check ## Run all checks, then all tests with coverage
	$(PYTHON_IN) -m coverage erase
	$(PYTHON_IN) -m coverage run -m pytest -m "not alone" --numprocesses $(WORKERS) --dist worksteal $(ARGS)
	$(PYTHON_IN) -m coverage run -m pytest -m alone $(ARGS)
	$(PYTHON_IN) -m coverage combine --quiet
	$(PYTHON_IN) -m coverage report

check: .venv/.dev ## Check format, lint, types and layers; changes nothing
	$(PYTHON_IN) -m ruff format --check .
	$(PYTHON_IN) -m ruff check .
	$(PYTHON_IN) -m basedpyright
	.venv/bin/lint-imports --no-logo

lint: .venv/.dev ## Format, and fix what can be fixed
	$(PYTHON_IN) -m ruff format .
	$(PYTHON_IN) -m ruff check --fix .

bench: .venv/.dev ## Run the benchmarks
	$(PYTHON_IN) benchmarks/run.py $(ARGS)

bench-compare: .venv/.dev ## Compare the main path with the baseline commit; fails when it got slower
	$(PYTHON_IN) benchmarks/compare.py $(ARGS)

soak: .venv/.dev ## Run for long under load and watch what grows
	$(PYTHON_IN) benchmarks/soak.py $(ARGS)

evidence: .venv/.dev ## Switch each part off and see that an end-to-end test notices
	$(PYTHON_IN) tools/evidence.py $(ARGS)

docs: .venv/.dev ## Generate the reference
	$(PYTHON_IN) tools/docs.py $(ARGS)

lock: .venv/.base ## Compile the pinned requirements again; ARGS=--upgrade takes newer versions
	$(COMPILE) requirements/uv.in -o requirements/uv.txt
	$(COMPILE) pyproject.toml requirements/run.in --extra embedded --extra semantic -o requirements/run.txt
	$(COMPILE) pyproject.toml requirements/run.in $(EXTRAS:%=--extra %) --group dev -c requirements/run.txt \
		-o requirements/dev.txt

clean: ## Remove the environment, caches and coverage files; keeps .kaizen
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.base: tools/bootstrap.sh requirements/uv.txt
	@sh tools/bootstrap.sh
	@touch $@

.venv/.run: .venv/.base requirements/run.txt pyproject.toml
	@$(INSTALL) --require-hashes -r requirements/run.txt
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@

# What development needs contains what running needs.
.venv/.dev: .venv/.base requirements/dev.txt pyproject.toml
	@$(UV_PIP) sync --python $(PYTHON_IN) --require-hashes requirements/dev.txt
	@$(INSTALL) --no-build-isolation --editable .
	@touch .venv/.run $@
