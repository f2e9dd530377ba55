# make demo          segment three photographs with the weights that ship, into out/demo/
# make test          every check but learning, under 15 minutes on two cores
# make test-fast     the quick tests of each room, without whole commands, contracts and documentation
# make test-learning what every system learns from fresh drawings; FAMILIES=semantic,instance,panoptic: the quick of each
# make test-fuzz     damaged files through all readers, for two minutes
# make format        repair what ruff can
# make docs          the documentation, into build/site
# make benchmark     all benchmarks, hours; their results into benchmarks/results/
# make release       check that a release can be made, then wheel and sdist into dist/
# make lock          resolve pyproject.toml anew into the two requirements files
#
# Everything is installed into .venv, from the locked requirements. To do without NVIDIA's libraries, install a CPU-only
# torch pair into .venv first (see README); they are then left out.

PYTHON ?= python3
VENV := .venv
# Processes that run tests.
WORKERS ?= 2
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Of test-learning: families of which the quick test is run, such as semantic,instance,panoptic; all tests without.
FAMILIES ?=
# Of test-fuzz: how long.
PIXELWISE_FUZZ_SECONDS ?= 120
export PIXELWISE_FUZZ_SECONDS

.PHONY: demo test test-fast test-learning test-fuzz lint format docs benchmark release lock install install-dev clean

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

format: install-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test: lint
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not learning and not fuzz" --ignore tests/learning

comma := ,
learning_semantic := tests/learning/test_semantic_drawings.py
learning_instance := tests/learning/test_object_drawings.py
learning_panoptic := tests/learning/test_panoptic_drawings.py
test-learning: install-dev
	$(BIN)/pytest $(if $(FAMILIES),-n $(WORKERS) --dist load -m "not learning" \
		$(foreach family,$(subst $(comma), ,$(FAMILIES)),$(or $(learning_$(family)),$(error no family '$(family)'))),-s tests/learning)

test-fuzz: install-dev
	$(BIN)/pytest tests/fuzz -m fuzz

docs: install-dev
	$(BIN)/python tools/build_docs.py

benchmark: install-dev
	for script in costs $(filter-out costs results,$(patsubst benchmarks/%.py,%,$(wildcard benchmarks/*.py))); do \
		$(BIN)/python benchmarks/$$script.py --record || exit 1; done

release: test docs
	$(BIN)/python tools/release.py

# What goes through many rooms at once, and takes most of the time.
WHOLE := cli contract docs fuzz importers inference learning models packaging training
test-fast: install-dev
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not slow and not fuzz" $(foreach room,$(WHOLE),--ignore tests/$(room))

lock: install-dev
	$(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 --no-header --no-annotate --no-emit-index-url --upgrade -o requirements.txt
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --python-version 3.11 --no-header --no-annotate --no-emit-index-url -c requirements.txt -o requirements-dev.txt

clean:
	rm -rf $(VENV) out build dist
