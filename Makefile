# `make demo` and `make test` set up what they need in a virtual environment of their own.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
COVERAGE := 96
TEST := -m pytest -n 8 --dist worksteal -m 'not alone'
# Else every worker compiles all tests anew, and every process that a test starts the whole exporter.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check lint versions lowest newest format alerts dashboards screenshot bench mutants tools clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(VENV)/.runtime: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

# Collecting compiles all tests: else every worker would.
$(VENV)/.development: pyproject.toml $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/python -m pytest --collect-only --quiet >/dev/null || true
	touch $@

demo: $(VENV)/.runtime  ## run against the built-in simulated API, on port 10117
	$(BIN)/mobizon-exporter --demo

test: $(VENV)/.development  ## run the tests, but for those that measure time or memory
	$(BIN)/python $(TEST)

lint: $(VENV)/.development  ## check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint  ## everything CI demands: format, lint, types, all tests with coverage
	$(BIN)/python $(TEST) --cov --cov-fail-under=$(COVERAGE)
	$(BIN)/python -m pytest -n 3 --dist loadgroup -m 'alone and xdist_group'
	$(BIN)/python -m pytest -m 'alone and not xdist_group'

versions: lowest newest  ## run the tests on the oldest Python with the lowest versions, and on the newest Python

# A python3.x on the PATH may be a stub that does not run.
PYTHONS = $(foreach minor,11 12 13 14,$(shell python3.$(minor) -c '' 2>/dev/null && echo python3.$(minor)))
OLDEST ?= $(or $(firstword $(PYTHONS)),$(PYTHON))
NEWEST ?= $(or $(lastword $(PYTHONS)),$(PYTHON))

lowest:  ## run the tests on the oldest Python and the lowest versions of the libraries that are allowed
	$(OLDEST) -m venv --clear $(VENV)-lowest
	sed -n 's/^    "\([a-z0-9-]*\)>=\([0-9.]*\).*",$$/\1==\2/p' pyproject.toml > $(VENV)-lowest/constraints.txt
	$(VENV)-lowest/bin/python -m pip install --quiet --disable-pip-version-check \
	  --constraint $(VENV)-lowest/constraints.txt --editable '.[dev]'
	$(VENV)-lowest/bin/python $(TEST)

newest:  ## run the tests on the newest Python
	$(NEWEST) -m venv --clear $(VENV)-newest
	$(VENV)-newest/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(VENV)-newest/bin/python $(TEST)

format: $(VENV)/.development  ## format the code, and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

alerts: $(VENV)/.development  ## make the alert rules anew from alerts/values.yaml
	$(BIN)/python -m alerts

dashboards: $(VENV)/.development  ## build the dashboards' JSON anew
	$(BIN)/python -m dashboards
	$(BIN)/python deploy/kubernetes/generate.py

screenshot: $(VENV)/.development  ## take the status page's pictures anew (needs Chromium); GRAFANA=URL for the dashboards
	$(BIN)/python docs/screenshot.py $(if $(GRAFANA),--grafana $(GRAFANA))

bench: $(VENV)/.development  ## measure, for 40 minutes; BENCH="--only scrapes" for a part, --help for more
	$(BIN)/python -m benchmarks $(BENCH)

mutants: $(VENV)/.development  ## test the tests by mutating what decides; MODULES="refresh/pacing" for a part
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,mutation]'
	$(BIN)/python tests/support/mutants.py $(MODULES)

tools:  ## build promtool of Prometheus 3 and helm, which some tests need (needs Go)
	mkdir -p .tools
	cd .ci/tools && CGO_ENABLED=0 go build -buildvcs=false -tags remove_all_sd -trimpath -ldflags='-s -w' -o ../../.tools/ \
	  github.com/prometheus/prometheus/cmd/promtool helm.sh/helm/v3/cmd/helm

clean:  ## remove what the other targets made
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest .coverage .hypothesis .mutants .mypy_cache .pytest_cache .ruff_cache build dist
