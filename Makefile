# Every target installs what it misses. `make demo` and `make test` are all a newcomer needs; CONTRIBUTING.md has the rest.

# Without this, simulated runs of the raft engine differ between processes (set order decides who is asked first).
export PYTHONHASHSEED := 0
export PYTHONDONTWRITEBYTECODE := 1

PY := .venv/bin/python
PYTEST := $(PY) -m pytest
JOBS ?= $(shell nproc)
SIDE_BY_SIDE := -n $(JOBS) --dist worksteal
LABS ?= 2
INTEGRATION = $(sort $(shell grep -rl --include='test_*.py' 'mark\.integration' tests))
SHELL := /bin/bash
N ?= 3
SEEDS ?= $(if $(filter sim-long,$(MAKECMDGOALS)),20000,$(if $(filter sim-ha-long,$(MAKECMDGOALS)),50000,300))
HA_SEEDS ?= $(if $(filter command line environment,$(origin SEEDS)),$(SEEDS),500)
FROM ?= 0
UNIT_DIRS := $(wildcard tests/unit tests/golden tests/contract)
CODE := core raftstate netfabric storage ha nodeagent tools kvorum_sdk tests

.PHONY: help setup demo test check format-check lint layers types unit sizes sim sim-long sim-ha sim-ha-long integration garbage ha-matrix lab lab-down bench bench-raft bench-api docs sdk guests lock clean
help:
	@sed -n 's/^## //p' Makefile

## make setup         install Debian packages, the virtual environment and the project (nothing to do: < 1 s)
setup:
	@packaging/setup.sh

## make demo          the main job in the lab: three hosts, a VM, a migration, a lost host
demo: setup
	$(PY) -m tools.demo

## make test          set-up and every default test (about half an hour on 2 cores; 20 minutes are meant)
test: setup
	$(MAKE) --no-print-directory check
	$(MAKE) --no-print-directory sim
	$(MAKE) --no-print-directory sim-ha
	$(MAKE) --no-print-directory integration

## make check         format, lint, layers, types, tidy, unit, golden, contract (6 to 10 minutes on 2 cores)
check: setup format-check lint layers types unit sizes

format-check: setup
	.venv/bin/ruff format --check --quiet --output-format concise $(wildcard $(CODE)) || { echo "run: .venv/bin/ruff format FILES"; exit 1; }

lint: setup
	.venv/bin/ruff check --quiet $(wildcard $(CODE))

layers: setup
	@mkdir -p build; .venv/bin/lint-imports --no-cache >build/layers.txt || { cat build/layers.txt; exit 1; }

types: setup
	.venv/bin/mypy

## make unit          unit, golden and contract tests: no root, no outside programs but libvirt's test driver
unit: setup
	$(PYTEST) -q $(SIDE_BY_SIDE) -m "not integration" $(UNIT_DIRS)

sizes: setup
	@$(PY) -m tests.tidy

## make sim SEEDS=200 whole clusters in virtual time; SEED=4711 repeats one
sim: setup
	$(PYTEST) -q $(SIDE_BY_SIDE) tests/sim $(if $(SEED),-k storm --seed $(SEED),tests/linearizability --seeds $(SEEDS))

## make sim-long      20,000 seeds in two processes, until the first violation; SEEDS=, FROM= choose others
sim-long: setup
	$(PY) -m tests.sim.long --seeds $(SEEDS) --from $(FROM)

## make sim-ha        failover in virtual time: 500 worlds of faults, and planted ones; SEED=4711 repeats one
sim-ha: setup
	$(PYTEST) -q $(SIDE_BY_SIDE) tests/sim_ha $(if $(SEED),-k random_world --seed $(SEED),--seeds $(HA_SEEDS))

## make sim-ha-long   50,000 worlds in two processes; SEEDS=, FROM= choose others; writes build/sim-ha.json
sim-ha-long: setup
	$(PY) -m tests.sim_ha.long --seeds $(SEEDS) --from $(FROM)

## make integration   real serf, libvirt and qemu in network namespaces (root), two labs at a time; LABS=1: one
integration: setup
	$(PYTEST) -q -n $(LABS) --dist loadfile --no-loadscope-reorder -m "integration and not alone" $(INTEGRATION)
	$(PYTEST) -q -m "integration and alone" $(INTEGRATION)

## make garbage     kill agents, fail and cancel work at every point on real hosts, and look for what is left (root)
garbage: setup
	$(PYTEST) -q -m integration --every-step tests/integration/test_workflow_garbage.py

## make ha-matrix   every failure of docs/ha-matrix.md in the lab, judged from outside (root, about 40 minutes); ROWS=1,2,16 chooses; writes build/ha-matrix.json
ha-matrix: setup
	@mkdir -p build
	@command -v cc >/dev/null || \
		DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gcc libc6-dev >build/ha-matrix.apt || true
	$(PY) -m tools.ha_matrix --rows "$(ROWS)"

## make lab N=3       leave a cluster of N hosts standing to play with
lab: setup
	.venv/bin/kvorum-lab up $(N) --cluster

## make lab-down      remove every trace of the lab
lab-down: setup
	.venv/bin/kvorum-lab down

## make guests        build the guest images the demo and the tests boot
guests: setup
	$(PY) -m tools.guests tiny
	$(PY) -m tools.guests full

## make bench         measure: idle cost of an agent, commits, creates
bench: setup
	$(PY) -m tools.bench

## make bench-raft    measure: commits next to etcd's, the cost of replicas, recovery; writes build/bench-raft.json
bench-raft: setup
	$(PY) -m tools.bench.raft $(if $(QUICK),--quick)

## make bench-api     measure: one agent's API next to LXD's, under the same load; writes build/bench-api.json
bench-api: setup
	@mkdir -p build
	@command -v lxd >/dev/null && command -v h2load >/dev/null || \
		DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends lxd nghttp2-client >build/bench-api.apt
	$(PY) -m tools.bench.api

## make docs          check the documents: links, requirement ids, named tests, the page of resources, the manual's examples
docs: setup
	$(PYTEST) -q tests/unit/test_docs.py tests/unit/test_model_attributes.py tests/unit/test_sdk_manual.py

## make sdk           write the typed part of the Python SDK anew, from the description of the API
sdk: setup
	@mkdir -p build; $(PY) -m nodeagent.api.description >build/openapi.json
	$(PY) -m tools.sdk.generate build/openapi.json

## make lock          resolve requirements*.in into the lock files
lock: setup
	packaging/lock.sh

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
