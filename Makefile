# make demo: set-up, then the main job on an embedded data set.   make test: set-up, then all checks.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
SEEDS ?= 5
export OMP_NUM_THREADS ?= 1

.PHONY: setup setup-dev demo test check docs fast slow format clean
.DEFAULT_GOAL := test

setup: $(VENV)/ready
setup-dev: $(VENV)/ready-dev

# A torch that is already there is never replaced: the environment sees it, and pip is held to its version.
$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed, but $$($(PYTHON) --version) came; try: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv \
	  $$($(PYTHON) -c 'import torch' 2>/dev/null && echo --system-site-packages) $(VENV)
	@$(BIN)/python -c 'import torch; print("torch==" + torch.__version__)' > $(VENV)/constraints.txt 2>/dev/null \
	  || cp constraints.txt $(VENV)/constraints.txt
	@echo "Setting up $(VENV) (a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/constraints.txt -e '.[files,audio]'
	@touch $@

$(VENV)/ready-dev: $(VENV)/ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/unswayed train digits --noise symmetric --rate 0.4 --epochs 50 --compare \
	  --seeds $(SEEDS) --jobs $(JOBS) --out demo --fresh

test: check fast slow

check: setup-dev docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The site, in build/site: a broken link or anchor, or a page that is in no menu, is an error.
docs: setup-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

fast: setup-dev
	$(BIN)/pytest -q -n $(JOBS) -m 'not slow'

slow: setup-dev
	$(BIN)/pytest -q -n $(JOBS) -m slow

format: setup-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
