# make demo       segment three photographs with the weights that ship, into out/demo/
# make test       every check, under 20 minutes on two cores
# make test-fast  the quick tests, under two minutes
# make test-learning  what every system learns from fresh drawings
# make lock       resolve pyproject.toml anew into the two requirements files
#
# Everything is installed into .venv, from the locked requirements. To do without NVIDIA's libraries, install a CPU-only
# torch pair into .venv first (see README); they are then left out.

PYTHON ?= python3
VENV := .venv
# Processes that run tests.
WORKERS ?= 2
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-fast test-learning lint lock install install-dev clean

demo: install
	photos="$$($(BIN)/python -c 'import skimage; print(skimage.__path__[0])')/data"; $(BIN)/pixelwise predict \
		"$$photos/astronaut.png" "$$photos/chelsea.png" "$$photos/motorcycle_left.png" --out out/demo

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/.python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "Python 3.11 or newer is wanted, $(PYTHON) is $$($(PYTHON) --version); make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.python requirements.txt pyproject.toml
	$(BIN)/python tools/install.py requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.python requirements-dev.txt pyproject.toml
	$(BIN)/python tools/install.py requirements-dev.txt
	@touch $@ $(VENV)/.installed

lint: install-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not learning"

test-learning: install-dev
	$(BIN)/pytest tests/learning -s

test-fast: install-dev
	$(BIN)/pytest -m "not slow"

lock: install-dev
	$(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 --no-header --no-annotate --no-emit-index-url --upgrade -o requirements.txt
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --python-version 3.11 --no-header --no-annotate --no-emit-index-url -c requirements.txt -o requirements-dev.txt

clean:
	rm -rf $(VENV) out
