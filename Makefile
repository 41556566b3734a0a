# `make demo` and `make test` need nothing but Python >= 3.11 and this file.
# The first of them sets up .venv from requirements.lock, once.

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
OUT ?= runs/demo-$(shell date +%Y%m%d-%H%M%S)
ARGS ?=

# What a user's shell holds must not reach into .venv.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
# pyright comes whole in its wheel; without this it asks the network whether it is the newest.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# A .venv whose Python has gone from the machine is made anew.
ifneq ($(shell $(PY) -c 'print(1)' 2>/dev/null),1)
$(shell rm -f $(READY))
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo test stress lint format docs lock clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## make .venv from requirements.lock (done by every other target)

demo: $(READY) ## the main experiment on real images; OUT=folder, ARGS="--seeds 2 --quiet"
	@$(PY) -m experiments vit_heads --out $(OUT) $(ARGS)

test: $(READY) ## the whole test suite; ARGS="tests/nn -x" for a part of it
	@$(PY) -m pytest -n 2 $(ARGS)

stress: $(READY) ## the tests that draw cases at random, with many more cases
	@MEANFIELD_STRESS=1 $(PY) -m pytest -n 2 -m stress $(ARGS)

lint: $(READY) ## ruff and pyright over everything
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m pyright --pythonpath $(PY)

format: $(READY) ## mend what ruff can mend
	@$(PY) -m ruff check --fix
	@$(PY) -m ruff format

docs: $(READY) ## the reference as web pages in site/
	@$(PY) -m pdoc --math --docformat google -o site meanfield

lock: ## write requirements.lock anew, with the newest versions
	@python3 -m venv --clear .lock
	@.lock/bin/python -m pip install -qq '.[dev,docs]'
	@.lock/bin/python -m pip freeze --exclude meanfield > requirements.lock
	@rm -rf .lock

clean: ## remove .venv and everything else that can be made again; runs/ stays
	@rm -rf $(VENV) .lock build dist site .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.lock pyproject.toml
	@set -e; \
	if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  chosen=; reason='no Python was found'; \
	  for name in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	    if ! $$name -c '' >/dev/null 2>&1; then continue; fi; \
	    if ! $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	      reason="$$name is $$($$name --version 2>&1)"; continue; fi; \
	    if ! $$name -c 'import venv, ensurepip' >/dev/null 2>&1; then \
	      reason="$$name has no module venv (Debian, Ubuntu: install python3-venv)"; continue; fi; \
	    chosen=$$name; break; \
	  done; \
	  if [ -z "$$chosen" ]; then \
	    echo "meanfield needs Python >= 3.11 with its module venv, but $$reason;" \
	      "install it, or name one: make PYTHON=/path/to/python3 ..." >&2; exit 1; fi; \
	  echo "[1/3] $(VENV): $$($$chosen --version)"; \
	  $$chosen -m venv --clear $(VENV); \
	fi; \
	echo "[2/3] $(VENV): $$(grep -c == requirements.lock) packages of requirements.lock (a minute or two, once)"; \
	$(PY) -m pip install -qq --disable-pip-version-check --no-input -r requirements.lock || { \
	  echo "the packages could not be installed (see above); is the network up? then run make again" >&2; exit 1; }; \
	echo "[3/3] $(VENV): meanfield itself"; \
	$(PY) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	touch $@
