# What people type. Every target sets up what it needs; `make help` lists them.
PROFILE ?= standard
MACHINE ?= two-socket
COMMAND ?= numabench machine
export MACHINE COMMAND # as they are: no shell of this machine may read them
VENV := .venv
PYTHON := $(VENV)/bin/python
NUMABENCH := $(VENV)/bin/numabench
# what `make bench` has to be able to do on this system, what it uses where it is there, and what the tests use on top (tools/system-packages)
ABILITIES := cc venv
USEFUL := numactl
USEFUL_TEST := browser hwloc aarch64-cc aarch64-run clang strace
ifeq ($(wildcard /run/systemd/system),)
USEFUL_TEST += sshd # only where installing it starts no daemon
endif
# two files of tests at a time: what they have in common is made once, and more would only stand in each other's way on the CPUs that they pin to
TWO := --numprocesses 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help bench report compare test check test-versions sanitize fuzz faults docs-site lint bench-self sample testbed certify clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Once per checkout, and again when the dependencies change.
$(VENV)/ready: pyproject.toml
	@tools/system-packages $(ABILITIES)
	@tools/system-packages --optional $(USEFUL)
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[report]'
	@touch $@

$(VENV)/ready-dev: $(VENV)/ready
	@tools/system-packages --optional $(USEFUL_TEST)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

bench: $(VENV)/ready ## measure this machine and render the report (PROFILE=quick|standard|full|accept)
	@$(NUMABENCH) run --profile $(PROFILE) --report

report: $(VENV)/ready ## render the report of all run logs of this machine
	@$(NUMABENCH) report

compare: $(VENV)/ready ## compare two machines: make compare BASE=results/a NEW=results/b (scripts ask numabench compare: make ends with 2 for all its codes)
	@test -n "$(BASE)" -a -n "$(NEW)" || { echo "usage: make compare BASE=file-or-folder NEW=file-or-folder" >&2; exit 2; }
	@$(NUMABENCH) compare "$(BASE)" "$(NEW)" --output compare.html

test: $(VENV)/ready-dev ## run all tests that need no special hardware
	@# What a new benchmark lacks is said first. Simulated machines are fetched beside the tests that need none; what cannot be fetched is no error: their tests are skipped and say why.
	@$(PYTHON) -m testbed prepare >/dev/null & preparing=$$!; trap "kill $$preparing 2>/dev/null" EXIT; \
	$(PYTHON) -m pytest $(TWO) -x tests/test_contract.py && $(PYTHON) -m pytest $(TWO) --ignore tests/test_contract.py

check: $(VENV)/ready-dev ## does a benchmark keep to the contract? make check NAME=fences; half a minute
	@test -n "$(NAME)" || { echo "usage: make check NAME=BENCHMARK" >&2; exit 2; }
	CHECKED="$(NAME)" $(PYTHON) -m pytest -x tests/test_contract.py -k "[$(NAME)]"
	$(PYTHON) tests/sanitize.py "$$($(NUMABENCH) list "$(NAME)" --format json | $(PYTHON) -c 'import json, sys; print(json.load(sys.stdin)[0]["kernel"])')"

test-versions: $(VENV)/ready ## the tests that need no special machine, with each Python from 3.10 on and the lowest declared dependencies
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check uv
	$(PYTHON) tools/test-versions $(VERSIONS)

sanitize: $(VENV)/ready-dev ## all kernels at the edges of their parameters under three sanitizers; some three minutes on two cores
	$(PYTHON) tests/sanitize.py

fuzz: $(VENV)/ready-dev ## 10,000 hostile logs, matrices and machine trees; ten minutes on two cores
	$(PYTHON) tests/fuzzing.py

docs-site: $(VENV)/ready-dev ## the documents as a site, with a gallery, in build/site
	$(PYTHON) tools/docs_site.py

faults: $(VENV)/ready-dev ## 500 faults put into runs that go on, as root with more of them; half an hour
	$(PYTHON) tests/faults.py

lint: $(VENV)/ready-dev ## check the style of the Python code, and the types of the public API
	$(PYTHON) -m ruff check numabench testbed tests
	$(PYTHON) -m numabench contract check
	$(PYTHON) -m mypy

bench-self: $(VENV)/ready-dev ## numabench's own speed and overhead, as recorded in docs/performance.md
	$(PYTHON) tools/bench_self.py

sample: $(VENV)/ready-dev ## record results/sample anew on this machine
	$(PYTHON) tools/record_sample.py

testbed: $(VENV)/ready-dev ## run COMMAND on a simulated machine: make testbed MACHINE=cxl COMMAND="numactl --hardware"
	@$(PYTHON) -m testbed prepare >/dev/null
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PYTHON) -m testbed run --machine "$$MACHINE" -- "$$COMMAND"

certify: $(VENV)/ready-dev ## is numabench right? simulated machines that a change touches, at most all: an hour and more; writes docs/certificate.md
	@$(PYTHON) -m testbed prepare
	@$(PYTHON) -m testbed prepare --arch aarch64
	@$(PYTHON) -m testbed certify --parts build/certificate --output docs; code=$$?; $(PYTHON) tools/badges.py; exit $$code

clean: ## remove the virtual environment and caches, keep results
	rm -rf $(VENV) build .pytest_cache .ruff_cache .hypothesis
