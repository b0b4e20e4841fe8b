# make lab   set up what is missing, then open JupyterLab on the first lab
# make demo  set up what is missing, then show the panels alone, code hidden, for a projector
# make test  set up what is missing, then run every check but the next one
# make test-labs  every lab, solved, from top to bottom in JupyterLab in Chromium
#
# PYTHON picks the interpreter (3.11 or newer), PORT the first port a server tries,
# MSPECKV_CACHE the folder that keeps the model.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Stamps: a step is done again when what it depends on has changed.
DONE := .setup

.DEFAULT_GOAL := help
.PHONY: help setup test-labs lab demo test lint types unit test-matrix hooks constraints clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

setup: $(DONE)/installed $(DONE)/model $(DONE)/chromium

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	@# Some distributions ship venv without ensurepip; then pip installs itself from outside.
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) \
		&& $(PYTHON) -m pip --python $(BIN)/python install pip; }

$(DONE)/installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on \
		-c constraints.txt -e '.[lab,demo,profile,cluster,test]'
	@mkdir -p $(DONE)/types
	@ln -sfn ../../widgets $(DONE)/types/mspeckv_widgets
	@touch $@

$(DONE)/model: $(DONE)/installed
	$(BIN)/mspeckv fetch
	@touch $@

# Only the tests drive a browser: `make lab` does not wait for it.
$(DONE)/chromium: $(DONE)/installed
	tools/ensure_chromium.sh $(BIN)/python
	@touch $@

lab: $(DONE)/installed $(DONE)/model
	$(BIN)/mspeckv lab $(if $(PORT),--port $(PORT))

demo: $(DONE)/installed $(DONE)/model
	$(BIN)/mspeckv demo $(if $(PORT),--port $(PORT)) $(if $(DARK),--dark)

# A browser test executes the labs, so their execution without one is left out.
test: setup lint types
	$(BIN)/python -m pytest -m "not no_browser and not labs"

# As long again as all other tests together.
test-labs: setup
	$(BIN)/python -m pytest -m labs

lint: $(DONE)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(DONE)/installed
	$(BIN)/mypy

# The tests that need no browser, under the installed transformers and the oldest supported one.
test-matrix: setup $(DONE)/installed-5.17
	$(BIN)/python -m pytest -m "not browser"
	.venv-5.17/bin/python -m pytest -m "not browser"

$(DONE)/installed-5.17: $(DONE)/installed
	$(PYTHON) -m venv .venv-5.17
	grep -v -i -E '^(transformers|huggingface[-_]hub)==' constraints.txt > $(DONE)/constraints-5.17.txt
	.venv-5.17/bin/python -m pip install --disable-pip-version-check --quiet \
		-c $(DONE)/constraints-5.17.txt -e '.[lab,demo,profile,cluster,test]' transformers==5.17.0
	@touch $@

hooks: $(DONE)/installed
	$(BIN)/pre-commit install

# After a deliberate upgrade: note what is installed now.
constraints: $(DONE)/installed
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[bench]'
	{ sed -n '/^#/p' constraints.txt; \
	  $(BIN)/python -m pip freeze --all --exclude-editable \
		| grep -v -E '^pip==' | sed 's/+cpu$$//' | sort -f; } > $(DONE)/constraints.txt
	mv $(DONE)/constraints.txt constraints.txt

clean:
	rm -rf $(VENV) .venv-5.17 $(DONE) build dist *.egg-info \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis
