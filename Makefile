# Needs only python3 (3.11 or newer) with venv. Every target sets up what it needs in .venv, once.
PYTHON ?= python3
# `make serve RUNTIME=gpu` on a machine with an NVIDIA GPU. Both runtimes are the same Python package,
# so each has an environment of its own.
RUNTIME ?= cpu
VENV := .venv$(if $(filter gpu,$(RUNTIME)),-gpu)
BIN := $(VENV)/bin
ARGS ?=
PROTO := .venv-proto
.DEFAULT_GOAL := help
comma := ,

# Debian keeps ensurepip in a package of its own; say so instead of failing half-way.
define venv
	@test -x $(BIN)/python || { $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "python3 with venv is needed (Debian: apt-get install python3-venv)"; exit 1; }; }
endef
define install
	$(venv)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(1)]'
	@touch $@
endef

.PHONY: serve test bench lint format proto clean help

serve: $(VENV)/.serve-$(RUNTIME)  ## start the daemon on ./model_repository (ARGS="--http-port 9000")
	$(BIN)/nerve serve $(ARGS)

# Processes of pytest share out the files in their order, the slowest of which are not the last; a few
# are enough, as many tests start processes of their own. ARGS="-n 0" for one process.
test: $(VENV)/.dev-$(RUNTIME)  ## run every test (ARGS="tests/unit -x")
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(VENV)/.dev-$(RUNTIME)  ## throughput beside the runtime's best; needs wrk (ARGS="--quick --models bundled")
	$(BIN)/python benchmarks/throughput.py $(ARGS)

lint: $(VENV)/.dev-$(RUNTIME)  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev-$(RUNTIME)  ## let ruff tidy up
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# An older protoc writes code that older and newer protobuf runtimes read; it wants an older
# runtime itself, so it lives apart.
proto:  ## write server/nerve/_proto from proto/
	@test -x $(PROTO)/bin/python || $(PYTHON) -m venv $(PROTO)
	$(PROTO)/bin/python -m pip install --quiet --disable-pip-version-check 'grpcio-tools==1.75.1'
	$(PROTO)/bin/python -m grpc_tools.protoc -Iproto --python_out=server/nerve/_proto \
	  --pyi_out=server/nerve/_proto proto/encoderfile/*.proto
	sed -i 's/^from encoderfile import/from nerve._proto.encoderfile import/' server/nerve/_proto/encoderfile/*_pb2.py*

$(VENV)/.serve-$(RUNTIME): pyproject.toml
	$(call install,$(RUNTIME))

$(VENV)/.dev-$(RUNTIME): pyproject.toml
	$(call install,$(RUNTIME)$(comma)dev)

clean:  ## remove what was set up and cached
	rm -rf .venv .venv-gpu $(PROTO) .pytest_cache .mypy_cache .ruff_cache .hypothesis benchmarks/.cache

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'
