# make lab   set up what is missing, then open JupyterLab on the first lab
# make demo  set up what is missing, then show the panels alone, code hidden, for a projector
# make site  set up what is missing, then build the pages that need no installation, into site/
# make test  set up what is missing, then run every check but the next two
# make test-labs  the live panel, and every lab, solved, from top to bottom, in JupyterLab in Chromium
# make test-wheel  the built wheel in a clean environment, up to a panel that moves; some minutes
# make test-graders  an exported lab, graded by nbgrader and otter-grader; part of test-labs
# make test-oldest  every kind of model under the oldest supported transformers
# make test-matrix  the engine's tests, under that and under the newest that there is today
#
# PYTHON picks the interpreter (3.11 or newer), PORT the first port a server tries,
# MSPECKV_CACHE the folder that keeps the model.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where nbgrader and otter-grader are.
GRADERS := .venv-graders
# Stamps: a step is done again when what it depends on has changed.
DONE := .setup
# What is installed beside the engine: to work with, and to check everything.
LAB := lab,demo
EXTRAS := lab,demo,profile,cluster,test

.DEFAULT_GOAL := help
.PHONY: help setup test-labs test-graders test-wheel lab demo site test lint types test-oldest test-newest test-matrix hooks constraints clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

setup: $(DONE)/installed $(DONE)/model $(DONE)/chromium

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	@# Some distributions ship venv without ensurepip; then pip installs itself from outside.
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) \
		&& $(PYTHON) -m pip --python $(BIN)/python install pip; }

INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on \
	-c constraints.txt -e

$(DONE)/installed-lab: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) '.[$(LAB)]'
	@mkdir -p $(DONE)
	@touch $@

$(DONE)/installed: $(DONE)/installed-lab
	$(INSTALL) '.[$(EXTRAS)]'
	@touch $@

$(DONE)/model: $(DONE)/installed-lab
	$(BIN)/mspeckv fetch
	@touch $@

# Only the tests drive a browser: `make lab` does not wait for it.
$(DONE)/chromium: $(DONE)/installed
	tools/ensure_chromium.sh $(BIN)/python
	@touch $@

lab: $(DONE)/installed-lab $(DONE)/model
	$(BIN)/mspeckv lab $(if $(PORT),--port $(PORT))

demo: $(DONE)/installed-lab $(DONE)/model
	$(BIN)/mspeckv demo $(if $(PORT),--port $(PORT)) $(if $(DARK),--dark)

site: $(DONE)/installed
	$(BIN)/mspeckv site build --out site

# Tests run two at a time, on one kernel thread each; those with limits of time are in test-labs.
# A browser test executes the labs, so their execution without one is left out.
PYTEST := $(BIN)/python -m pytest
TWO_AT_A_TIME := -n 2 --dist worksteal
PANELS := browser and not labs and not wheel

test: setup lint types
	OMP_NUM_THREADS=1 $(PYTEST) $(TWO_AT_A_TIME) -m "not browser and not no_browser and not labs"
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder -m "$(PANELS) and not alone" tests/browser

# Installs anew what the index has, so it is apart.
test-wheel: setup
	$(PYTEST) -m wheel

# What has limits of time, so that nothing runs beside it: the live panel, then the labs.
test-labs: setup test-graders
	$(PYTEST) -m "$(PANELS) and alone" tests/browser
	$(PYTEST) -m labs

# The graders change JupyterLab, so they have an environment of their own; two minutes to make it.
test-graders: $(DONE)/installed-graders
	OMP_NUM_THREADS=1 $(GRADERS)/bin/python -m pytest $(TWO_AT_A_TIME) tests/test_course_graders.py

$(DONE)/installed-graders: $(DONE)/installed
	test -x $(GRADERS)/bin/python || $(PYTHON) -m venv $(GRADERS)
	$(GRADERS)/bin/python -m pip install --disable-pip-version-check --quiet \
		-c constraints.txt -e '.[lab,teach]' pytest pytest-timeout pytest-xdist
	@# without them the tests would be skipped
	@$(GRADERS)/bin/python -c 'import nbgrader, otter'
	@touch $@

lint: $(DONE)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/python tools/line_budgets.py

types: $(DONE)/installed
	$(BIN)/mypy

# What depends on transformers: the engine, its drop-in, the probes, the model files. A name that
# transformers is about to drop is an error.
OLDEST := 5.17.0
ENGINE := not browser and not labs and not no_browser and not lab_parts
ENGINE_TESTS := -W error::FutureWarning -m "$(ENGINE)"

test-matrix: setup $(DONE)/installed-oldest test-newest
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest $(TWO_AT_A_TIME) $(ENGINE_TESTS)

# Where one transformers differs from the next: what a model is, and generate. The rest is the matrix's.
KINDS := beside drop_in drop_in_as_generate exactness experts families gguf latent models \
	padding recurrent windows
test-oldest: setup $(DONE)/installed-oldest
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest $(TWO_AT_A_TIME) \
		-W error::FutureWarning -m "$(ENGINE) and not slow" $(KINDS:%=tests/test_%.py)

test-newest: setup $(DONE)/installed-newest
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest $(TWO_AT_A_TIME) $(ENGINE_TESTS)

$(DONE)/installed-oldest: $(DONE)/installed
	$(call other_transformers,.venv-oldest,transformers==$(OLDEST))
	@touch $@

# Asked for anew every time: a release may have come out since.
.PHONY: $(DONE)/installed-newest
$(DONE)/installed-newest: $(DONE)/installed
	$(call other_transformers,.venv-newest,--upgrade-strategy only-if-needed --upgrade transformers)

# An environment $(1) with the pins but for transformers, which is as $(2) says, and its hub.
define other_transformers
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	grep -v -i -E '^(transformers|huggingface[-_]hub|tokenizers|peft)==' constraints.txt > $(DONE)/other-constraints.txt
	$(1)/bin/python -m pip install --disable-pip-version-check --quiet \
		-c $(DONE)/other-constraints.txt -e '.[$(EXTRAS)]' $(2)
	@$(1)/bin/python -c 'import transformers; print("transformers", transformers.__version__)'
endef

hooks: $(DONE)/installed
	$(BIN)/pre-commit install

# After a deliberate upgrade: note what is installed now, here and where the graders are.
constraints: $(DONE)/installed $(DONE)/installed-graders
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[bench]'
	{ sed -n '/^#/p' constraints.txt; \
	  for python in $(BIN)/python $(GRADERS)/bin/python; do \
		$$python -m pip freeze --all --exclude-editable; done \
		| grep -v -E '^pip==' | sed 's/+cpu$$//' | sort -f -u; } > $(DONE)/constraints.txt
	mv $(DONE)/constraints.txt constraints.txt

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest $(GRADERS) $(DONE) build dist *.egg-info \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis
