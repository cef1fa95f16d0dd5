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

# Debian keeps ensurepip in a package of its own; say so instead of failing half-way. A newer pip than
# it brings takes two thirds of the time to find out what goes with what.
define venv
	@test -x $(BIN)/python || { $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "python3 with venv is needed (Debian: apt-get install python3-venv)"; exit 1; }; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip; }
endef
define install
	$(venv)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(1)]' $(2)
	@touch $@
endef

.PHONY: serve test bench lint format proto clean help

serve: $(VENV)/.serve-$(RUNTIME)  ## start the daemon on ./model_repository (ARGS="--http-port 9000")
	$(BIN)/nerve serve $(ARGS)

# Processes of pytest share out the files in their order, the slowest of which are not the last; a few
# are enough, as many tests start processes of their own, and wait for them: three keep two cores busy.
# ARGS="-n 0" for one process.
test: $(VENV)/.dev-$(RUNTIME) $(VENV)/.perf-analyzer  ## run every test (ARGS="tests/unit -x")
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(VENV)/.dev-$(RUNTIME) $(VENV)/.perf-analyzer  ## throughput beside the runtime's best; needs wrk (ARGS="--quick --models bundled")
	$(BIN)/python benchmarks/throughput.py $(ARGS)

lint: $(VENV)/.dev-$(RUNTIME)  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev-$(RUNTIME)  ## let ruff tidy up
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# An older protoc writes code that older and newer protobuf runtimes read; it wants an older
# runtime itself, so it lives apart. What it writes goes into a pool of descriptors of our own:
# clients' code of the same packages (tritonclient, Encoderfile) may be in the same process.
GENERATED := server/nerve/_proto
CLIENT_GENERATED := clients/python/src/nerve_client/_proto
define own_pool
	find $(1) -name '*_pb2.py' -exec sed -i \
	  -e 's/^from google.protobuf import descriptor_pool as _descriptor_pool$$/from $(2) import POOL as _POOL/' \
	  -e 's/_descriptor_pool\.Default()/_POOL/' {} +
endef
proto:  ## write the generated code from proto/
	@test -x $(PROTO)/bin/python || $(PYTHON) -m venv $(PROTO)
	$(PROTO)/bin/python -m pip install --quiet --disable-pip-version-check 'grpcio-tools==1.75.1'
	$(PROTO)/bin/python -m grpc_tools.protoc -Iproto --python_out=$(GENERATED) --pyi_out=$(GENERATED) \
	  proto/encoderfile/*.proto proto/inference/*.proto proto/nerve/v1/*.proto
	sed -i 's/^from encoderfile import/from nerve._proto.encoderfile import/' $(GENERATED)/encoderfile/*_pb2.py*
	$(call own_pool,$(GENERATED),nerve._proto)
	$(PROTO)/bin/python -m grpc_tools.protoc -Iproto/nerve/v1 --python_out=$(CLIENT_GENERATED) \
	  --pyi_out=$(CLIENT_GENERATED) proto/nerve/v1/nerve.proto
	$(call own_pool,$(CLIENT_GENERATED),nerve_client._proto)

$(VENV)/.serve-$(RUNTIME): pyproject.toml
	$(call install,$(RUNTIME)$(comma)mcp$(comma)otel$(comma)build)

$(VENV)/.dev-$(RUNTIME): pyproject.toml clients/python/pyproject.toml
	$(call install,$(RUNTIME)$(comma)dev,--editable 'clients/python[grpc]')

# Triton's load generator; what else it needs is Debian's libb64-0d. Tests that find it missing skip.
$(VENV)/.perf-analyzer: benchmarks/perf_analyzer.py | $(VENV)/.dev-$(RUNTIME)
	@$(BIN)/python benchmarks/perf_analyzer.py && touch $@ || echo "perf_analyzer could not be fetched"

clean:  ## remove what was set up and cached
	rm -rf .venv .venv-gpu $(PROTO) .pytest_cache .mypy_cache .ruff_cache .hypothesis benchmarks/.cache

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'
