# Everything that is done with this repository, by one word each. Debian family, root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export AWS_EC2_METADATA_DISABLED = true
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-node lint lint-workflows bootstrap bundle release check-tag bench herd clean

help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-14s %s\n", $$1, $$2}'

demo: $(STAMP) machine bootstrap ## run the article's verification on a simulated cluster (OS=al2023, rocky9, ...: of that system)
	@PYTHONPATH=agent:tests $(BIN)/python tests/demo.py $(OS)

test: $(STAMP) machine bootstrap ## run all tests, those on simulated nodes too
	@$(BIN)/python -m pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

test-fast: $(STAMP) ## run the tests that need no node
	@$(BIN)/python -m pytest tests/fast

test-node: $(STAMP) machine bootstrap ## run the tests on simulated nodes
	@$(BIN)/python -m pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder tests/node

lint: $(STAMP) ## style, types and the order of the floors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

lint-workflows: $(STAMP) ## check what GitHub runs (needs go, for actionlint)
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

bootstrap: $(STAMP) ## build dist/s3mount-bootstrap
	@$(BIN)/python packaging/build_bootstrap.py

release: $(STAMP) ## build all of a release into dist/: bootstrap file, wheel, sdist, SBOM, SHA256SUMS
	@$(BIN)/pip install --quiet --editable '.[release]'
	@$(BIN)/python packaging/build_release.py

bundle: $(STAMP) bootstrap ## gather what nodes without internet need: SYSTEMS=ubuntu2204,debian12:arm64 [TO=s3://bucket/prefix]
	@PYTHONPATH=agent $(BIN)/python packaging/build_bundle.py --systems="$(SYSTEMS)" --to="$(or $(TO),dist/bundle)"

check-tag: ## check that TAG=v1.2.3 is the package's version
	@$(PYTHON) packaging/build_release.py --check-tag "$(TAG)"

bench: $(STAMP) machine bootstrap ## measure, side by side with the article's scripts
	@PYTHONPATH=agent:tests $(BIN)/python tests/bench.py

herd: $(STAMP) ## simulate how the requests of a thousand nodes spread
	@PYTHONPATH=agent:tests $(BIN)/python tests/herd.py

clean: ## remove what was built (the image of the simulated nodes stays in its cache)
	rm -rf dist build $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# What the simulated cluster needs of the machine itself.
.PHONY: machine
machine:
	@sh tests/cluster/setup_machine.sh

# A fresh Debian's python3 has no venv module; where it is missing, the machine is set up first.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || sh tests/cluster/setup_machine.sh
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@
