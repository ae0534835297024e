# Everything a new machine needs: Python 3.10-3.12 and a package registry. `make demo` and `make test` set up .venv first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
UV     := $(BIN)/uv
STAMP  := $(VENV)/.pathzoo-installed
# Nothing is compiled; albumentations does not ask for updates.
export MMCV_WITH_OPS := 0
export NO_ALBUMENTATIONS_UPDATE := 1
# Hard links where the cache lies on the same disk, copies elsewhere, no complaint either way.
export UV_LINK_MODE ?= $(shell [ "$$(stat -c %d $(HOME)/.cache 2>/dev/null)" = "$$(stat -c %d .)" ] && echo hardlink || echo copy)

# Pix2Pix, without what the rest of mmagic depends on: see pathzoo/compat/mmagic.py.
MMAGIC := mmagic==1.2.0

# Processes that run the tests; a file's tests stay in one, since they share what is dear to make.
TESTERS ?= 2

.PHONY: help setup demo test test-all lint wheelhouse clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

setup: $(STAMP) ## make .venv with everything the demo and the tests need

$(UV):
	$(PYTHON) -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12) and 'pathzoo needs Python 3.10 to 3.12, this is ' + sys.version.split()[0] + '; make PYTHON=python3.11 ...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		$$( [ -d wheelhouse ] && echo --no-index --find-links wheelhouse ) uv

# From ./wheelhouse where `make wheelhouse` filled it, else from the registry.
$(STAMP): pyproject.toml constraints.txt overrides.txt | $(UV)
	$(UV) pip install --python $(BIN)/python --constraints constraints.txt --overrides overrides.txt \
		$$( [ -d wheelhouse ] && echo --offline --no-index --find-links wheelhouse ) --editable '.[all,dev]'
	$(UV) pip install --python $(BIN)/python --no-deps \
		$$( [ -d wheelhouse ] && echo --offline --no-index --find-links wheelhouse ) $(MMAGIC)
	@touch $@

demo: $(STAMP) ## train, test, publish, verify, load and predict on a phantom cohort (4 minutes)
	$(BIN)/python tools/demo.py

test: $(STAMP) ## lint, types, and all tests but those marked slow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not slow" -n $(TESTERS) --dist loadfile

test-all: $(STAMP) ## every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile

lint: $(STAMP) ## format, and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheelhouse: $(STAMP) ## collect every wheel into ./wheelhouse, for a machine of the same Python without a network
	rm -rf wheelhouse.part && mkdir wheelhouse.part
	$(UV) pip freeze --python $(BIN)/python --exclude-editable > wheelhouse.part/requirements.txt
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-cache-dir --no-deps \
		--wheel-dir wheelhouse.part --requirement wheelhouse.part/requirements.txt uv
	rm -rf wheelhouse && mv wheelhouse.part wheelhouse

clean: ## remove the environment and what runs left behind
	rm -rf $(VENV) work_dirs wheelhouse wheelhouse.part build dist .pytest_cache .ruff_cache .mypy_cache
