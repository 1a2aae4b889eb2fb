# Two commands do all the set-up: `make serve` and `make test`. They need Python 3.10+, git and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: serve test test-live lint types check bench cost faults doctor tails fuzz soak reliability capacity image-check licences sbom audit dist lock clean

serve: $(VENV)/.serve  ## serve custom_llm.py on port 8000, and print a curl line that works at once
	$(BIN)/firstword serve $(ARGS)

test: $(VENV)/.dev  ## run every test, without network
	$(BIN)/python -m pytest $(ARGS)

CLIENTS = livekit pipecat agents openai2 schemathesis

clients: $(CLIENTS:%=.venv-%/.made)  ## what tests/clients/ runs; needs the package registry, and 1 GB

test-live: .venv-live/.made  ## talk to a real model, here and behind llama.cpp's server; needs a C++ compiler, and minutes
	.venv-live/bin/python -m pytest tests/live $(ARGS)

lint: $(VENV)/.dev  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy, strict
	$(BIN)/mypy

check: lint types test  ## all that must hold before a commit

bench: $(VENV)/.bench  ## time the relay beside other servers; needs a C compiler
	$(BIN)/python -m benchmarks.run $(ARGS)

cost: $(VENV)/.dev  ## count the instructions of a turn and of a chunk, beside the known ones; needs valgrind
	$(BIN)/python -m benchmarks.cost $(ARGS)

faults: $(VENV)/.dev  ## play what a model can do wrong, and print what a caller hears; ARGS=--write keeps it in docs/
	$(BIN)/python tests/faults.py $(ARGS)

doctor: $(VENV)/.dev  ## have `firstword check` examine firstword and a naive server; ARGS=--write keeps it in the READMEs and docs/
	$(BIN)/python tests/doctor/compare.py $(ARGS)

tails: $(VENV)/.bench  ## how long callers wait with real models' times; ARGS=--write keeps table and picture in docs/
	$(BIN)/python -m benchmarks.tails $(ARGS)

SECONDS ?= 60
fuzz: $(VENV)/.fuzz  ## look for inputs that break the readers; SECONDS=60 for each, Linux on x86-64, CPython 3.11 to 3.14
	$(BIN)/python tests/fuzz/run.py $(SECONDS) $(ARGS)

soak: $(VENV)/.dev  ## 10,000 turns, a third of them dropped, and what is left of them; needs Linux
	$(BIN)/python -m benchmarks.soak $(ARGS)

reliability: $(VENV)/.dev .venv-schemathesis/.made  ## try all that a server must survive, and print what happened; ARGS=--quick, or --write to keep it in docs/
	$(BIN)/python -m benchmarks.reliability $(ARGS)

capacity: $(VENV)/.dev  ## how much machine so many calls take; ARGS="--calls 5000 --every 8", or --write to keep it in docs/
	$(BIN)/python -m benchmarks.capacity $(ARGS)

image-check: $(VENV)/.dev  ## build the Dockerfile and run what comes of it; needs root, buildah and the package registry
	CHECK_IMAGE=1 $(BIN)/python -m pytest tests/deploy/test_image.py $(ARGS)

SHIPPING = .venv-shipping/bin
EXPORT = $(SHIPPING)/uv export --quiet --frozen --no-default-groups --no-emit-project
licences: .venv-shipping/.made .venv-image/.made $(VENV)/.dev  ## does every package have a licence of locks/licences.allowed?
	mkdir -p build
	$(SHIPPING)/pip-licenses --python .venv-image/bin/python --from mixed --allow-only "$(ALLOWED)" --summary
	$(SHIPPING)/pip-licenses --python $(BIN)/python --from mixed --allow-only "$(ALLOWED)" --ignore-packages agora-agents > build/licences-dev.txt
ALLOWED = $(shell grep -v '^#' locks/licences.allowed | paste -s -d ';' -)

# Without what builds: no build group.
SBOM = $(SHIPPING)/cyclonedx-py requirements - --pyproject pyproject.toml --output-reproducible --sv 1.6 --validate
sbom: .venv-shipping/.made  ## list what an install, and the image, consist of: build/*.cdx.json, CycloneDX
	mkdir -p build
	$(EXPORT) | $(SBOM) -o build/firstword.cdx.json
	$(EXPORT) $(IMAGE_EXTRAS:%=--extra %) | $(SBOM) -o build/image.cdx.json

audit: .venv-shipping/.made  ## is anything that is locked known to be vulnerable? asks the package index
	for lock in locks/*.txt; do echo "$$lock"; $(SHIPPING)/pip-audit --strict --require-hashes --disable-pip -r "$$lock" || failed=1; done; test -z "$$failed"

dist: $(VENV)/.serve  ## build what is published, with the locked build tools: dist/
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -c 'import pathlib; pathlib.Path("dist").mkdir(exist_ok=True); from flit_core import buildapi; [print(build("dist")) for build in (buildapi.build_sdist, buildapi.build_wheel)]'

# What the image has beyond the server: the store that many machines share, and the like.
IMAGE_EXTRAS = jwt redis traces

lock: $(VENV)/.dev  ## resolve the dependencies anew and write all lock files
	$(BIN)/pip install --quiet uv
	$(BIN)/uv lock --upgrade
	$(BIN)/uv export --quiet --no-default-groups --group build --no-emit-project -o locks/serve.txt
	$(BIN)/uv export --quiet --no-default-groups --group build --no-emit-project $(IMAGE_EXTRAS:%=--extra %) -o locks/image.txt
	$(BIN)/uv export --quiet --no-default-groups --group build --group dev --no-emit-project -o locks/dev.txt
	$(BIN)/uv export --quiet --no-default-groups --group build --group dev --group bench --no-emit-project -o locks/bench.txt
	$(BIN)/uv export --quiet --no-default-groups --group build --group dev --group fuzz --no-emit-project -o locks/fuzz.txt
	$(BIN)/uv export --quiet --no-default-groups --no-hashes --no-annotate --no-header -o requirements.txt
	$(LOCK_CLIENT) locks/livekit.in -o locks/livekit.txt
	$(LOCK_CLIENT) locks/pipecat.in -o locks/pipecat.txt --no-emit-package docopt
	$(LOCK_CLIENT) locks/agents.in -o locks/agents.txt
	$(LOCK_CLIENT) locks/openai2.in -o locks/openai2.txt
	$(LOCK_CLIENT) locks/shipping.in -o locks/shipping.txt
	$(LOCK_CLIENT) locks/schemathesis.in -o locks/schemathesis.txt
	$(LOCK_CLIENT) locks/llama.in -o locks/llama.txt --no-deps
	$(LOCK_CLIENT) locks/live.in -o locks/live.txt -c locks/dev.txt -c locks/llama.txt --overrides locks/live.not --no-emit-package llama-cpp-python

# docopt has no wheel, and is asked for by a command of num2words that nobody runs.
LOCK_CLIENT = $(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header --python-version 3.11

# Hashes are checked, and nothing is built with tools that have none.
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check
define install
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "firstword needs Python 3.10 or newer\nhint: make $(1) PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --require-hashes -r locks/$(1).txt
	$(INSTALL) --no-build-isolation --no-deps -e .
	touch $@
endef

$(VENV)/.serve: locks/serve.txt pyproject.toml
	$(call install,serve)

$(VENV)/.dev: locks/dev.txt pyproject.toml
	$(call install,dev)

$(VENV)/.bench: locks/bench.txt pyproject.toml
	$(call install,bench)

$(VENV)/.fuzz: locks/fuzz.txt pyproject.toml
	$(call install,fuzz)

# Each in an environment of its own: their packages are many, and are not ours.
.venv-%/.made: locks/%.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "$* needs Python 3.11 or newer\nhint: make clients PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv-$*
	.venv-$*/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --no-compile --only-binary :all: -r locks/$*.txt
	touch $@

# What llama.cpp is built with is locked as well, and of it what reads pictures is left out.
.venv-live/.made: locks/dev.txt locks/live.txt locks/llama.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "llama.cpp needs Python 3.11 or newer here\nhint: make test-live PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv-live
	.venv-live/bin/pip install --quiet --disable-pip-version-check --require-hashes -r locks/dev.txt
	.venv-live/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r locks/live.txt
	PATH="$(CURDIR)/.venv-live/bin:$$PATH" CMAKE_ARGS=-DLLAVA_BUILD=OFF .venv-live/bin/pip install --disable-pip-version-check --require-hashes --no-deps --no-build-isolation -r locks/llama.txt
	.venv-live/bin/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) $(CLIENTS:%=.venv-%) .venv-shipping .venv-image .venv-live .pytest_cache .mypy_cache .ruff_cache .hypothesis benchmarks/build build dist
