# The README's two commands are `make run` and `make test`; both create .venv with the versions of constraints.txt first.
# TORCH_INDEX=URL takes torch from another package index, such as https://download.pytorch.org/whl/cpu for a CPU build.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TORCH_INDEX ?=
OLDEST := $(VENV)/oldest
# Tests run side by side, a file at a time; each worker holds a torch, about 1 GiB.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile
OLDEST_TRANSFORMERS = $(shell sed -n 's/^transformers==//p' constraints-oldest.txt)

.PHONY: run test test-oldest browser lint format clean

run: $(INSTALLED)
	$(BIN)/modbench run scenarios/quickstart.yaml

test: $(INSTALLED)
	$(PYTEST)

# The tests that run models, on the oldest supported transformers: a folder in front of the environment, not a second one.
test-oldest: $(OLDEST)/.installed
	PYTHONPATH=$(CURDIR)/$(OLDEST) $(BIN)/python -c 'import sys, transformers as t; \
		sys.exit(t.__version__ != "$(OLDEST_TRANSFORMERS)" and f"$@: got transformers {t.__version__} of {t.__file__}")'
	PYTHONPATH=$(CURDIR)/$(OLDEST) $(PYTEST) tests/reference_impl \
		tests/modbench/test_guard*.py tests/modbench/test_methods*.py tests/modbench/test_worker*.py

# The browser that the tests of the pages need; without one they are skipped.
browser:
	.ci/install-browser

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "modbench needs Python 3.11 or newer; set PYTHON=python3.11")'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)

$(OLDEST)/.installed: $(INSTALLED) constraints-oldest.txt
	rm -rf $(OLDEST)
	$(BIN)/pip install --quiet --no-deps --target $(OLDEST) --requirement constraints-oldest.txt
	touch $(OLDEST)/.installed

clean:
	rm -rf $(VENV) build dist *.egg-info
