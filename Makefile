# Everything one does with a checkout. `make` lists it; ARGS="..." is passed on to the program behind a target.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory
BIN := .venv/bin
LOCKS := requirements/run.txt requirements/build.txt requirements/demo.txt
COMPILE = .cache/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
          --no-emit-index-url --no-header --no-annotate $(ARGS)
IMAGE ?= healthagent
LABELS = --build-arg REVISION=$(or $(shell git rev-parse HEAD 2>/dev/null),unknown)

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1 \2/p' $(MAKEFILE_LIST) | while read -r target words; do \
	    printf '  make %-8s %s\n' "$$target" "$$words"; done

demo: .venv/run.stamp ## start a 3-node cluster with agents on loopback and walk through failover and split brain
	@$(BIN)/healthagent demo $(ARGS)

test: .venv/dev.stamp .cache/audit/stamp system-packages ## run every check and every test; as root, installs the programs that tests need
	@scripts/test.sh

style: .venv/dev.stamp ## check the code's style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/dev.stamp ## check types, and who imports whom
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

matrix: .venv/dev.stamp ## run the live tests with every supported PostgreSQL version
	$(BIN)/pytest -m matrix $(ARGS)

nightly: .venv/dev.stamp ## properties with new examples, ten minutes of fuzzing, a million random schedules of faults (hours)
	$(BIN)/pytest -m "not live" --hypothesis-profile=fresh --numprocesses=2
	$(BIN)/python -m tests.fuzz
	$(BIN)/python -m tests.simulator --schedules 1000000 $(ARGS)

soak: .venv/dev.stamp ## check 500 times a second for 15 minutes while PostgreSQL and peers fail at random (ARGS="--minutes 5")
	$(BIN)/python -m tests.soak $(ARGS)

fuzz: .venv/dev.stamp ## feed everything that reads what others wrote with random input (10 minutes: ARGS="--minutes 10")
	$(BIN)/python -m tests.fuzz $(ARGS)

bench: .venv/dev.stamp ## measure side by side with other health checks
	$(BIN)/python -m bench $(ARGS)

windows: .venv/dev.stamp ## measure where writes go while the primary changes behind HAProxy (ARGS="--events 20 --write")
	$(BIN)/python -m bench.windows $(ARGS)

figures: .venv/dev.stamp system-packages ## measure how long a change of the primary takes, and what peers cost (as root)
	$(BIN)/python -m bench.figures $(ARGS)

image: ## build the container image with buildah, podman or docker (IMAGE=name)
	@if command -v buildah >/dev/null; then buildah bud --format docker -t "$(IMAGE)" $(LABELS) $(ARGS) .; \
	elif command -v podman >/dev/null; then podman build --format docker -t "$(IMAGE)" $(LABELS) $(ARGS) .; \
	elif command -v docker >/dev/null; then docker build -t "$(IMAGE)" $(LABELS) $(ARGS) .; \
	else echo "make image needs buildah, podman or docker: apt-get install -y buildah" >&2; exit 1; fi

lock: .cache/uv/bin/uv ## pin requirements/*.txt for what pyproject.toml asks (newest versions: ARGS=--upgrade)
	$(COMPILE) pyproject.toml -o requirements/run.txt
	$(COMPILE) --group build -c requirements/run.txt -o requirements/build.txt
	$(COMPILE) --group demo -o requirements/demo.txt
	$(COMPILE) --group audit -o requirements/audit.txt
	$(COMPILE) pyproject.toml --group dev $(LOCKS:%=-c %) -o requirements/dev.txt

sbom: .cache/audit/stamp ## write dist/sbom.json: what an installation consists of, with its hashes (CycloneDX)
	@.cache/audit/bin/python scripts/sbom.py dist/sbom.json

audit: .cache/audit/stamp ## ask for known vulnerabilities of all locked packages; needs the network
	.cache/audit/bin/pip-audit --disable-pip --require-hashes $(LOCKS:%=-r %) -r requirements/dev.txt $(ARGS)

clean: ## remove everything that make has made
	rm -rf .venv .cache dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

system-packages:
	@scripts/system-packages.sh

.venv/run.stamp: $(LOCKS) pyproject.toml
	@scripts/venv.sh run

.venv/dev.stamp: requirements/dev.txt $(LOCKS) pyproject.toml
	@scripts/venv.sh dev

.cache/audit/stamp: requirements/audit.txt | .venv/run.stamp
	$(BIN)/python -m venv .cache/audit
	.cache/audit/bin/pip --quiet --disable-pip-version-check install --require-hashes -r requirements/audit.txt
	touch $@

.cache/uv/bin/uv:
	python3 -m venv .cache/uv
	.cache/uv/bin/pip --quiet install uv

.PHONY: help demo test style types matrix nightly fuzz soak bench windows image lock sbom audit clean system-packages
