# Make dispatches, Python decides: nothing here reads .config, and no value is ever expanded by make or by the shell.
# A variable given on the command line is taken literally by $(value ...) and handed on through the environment.

SHELL := /bin/sh
.DEFAULT_GOAL := all
MAKEFLAGS += --no-print-directory --no-builtin-rules
.SUFFIXES:

OVERRIDES := EPOCHS SEEDS MAX_ITERS DATA_DIR RESULTS SET
KNOWN := $(OVERRIDES) FORMAT PROBE PYTHON TORCH

# torch's threads sleep while they wait: spinning, they take the cores from whatever else runs (see lib/__init__.py).
OMP_WAIT_POLICY ?= PASSIVE
export OMP_WAIT_POLICY

given = $(filter command,$(firstword $(origin $(1))))
GIVEN := $(strip $(foreach v,$(.VARIABLES),$(if $(call given,$(v)),$(v))))
UNKNOWN := $(filter-out $(KNOWN) MAKEFLAGS MAKEOVERRIDES -*-command-variables-*-,$(GIVEN))
ifneq ($(UNKNOWN),)
$(error unknown variable $(firstword $(UNKNOWN)): known are $(KNOWN); symbols of the configuration go into SET="NAME=value")
endif

# EPOCHS=3 make would be ignored; taking it would let any variable of that name in a shell change results.
$(foreach v,$(OVERRIDES),$(if $(filter environment,$(origin $(v))),$(warning $(v) in the environment is not used: give it after make, as in `make $(v)=...`)))

define take
ifneq ($(call given,$(1)),)
override $(1) := $$(value $(1))
export OVERRIDE_$(1) := $$(value $(1))
else
unexport OVERRIDE_$(1)
endif
endef
$(foreach v,$(OVERRIDES),$(eval $(call take,$(v))))

# An override that no goal on the line takes would be ignored.
TAKERS := all run plan continue rerun-failed report update-graphs audit data docs
ifneq ($(filter $(OVERRIDES),$(GIVEN)),)
ifeq ($(filter $(TAKERS),$(or $(MAKECMDGOALS),all)),)
$(error $(firstword $(filter $(OVERRIDES),$(GIVEN))) changes nothing here: it goes with one of $(TAKERS))
endif
endif
ifneq ($(call given,FORMAT),)
ifeq ($(filter plan,$(MAKECMDGOALS)),)
$(error FORMAT changes nothing here: it goes with plan)
endif
endif

ifneq ($(call given,TORCH),)
ifeq ($(filter check-torch,$(MAKECMDGOALS)),)
$(error TORCH changes nothing here: it goes with check-torch)
endif
override TORCH := $(value TORCH)
export TORCH
else
unexport TORCH
endif

ifneq ($(call given,PROBE),)
ifeq ($(filter plan,$(MAKECMDGOALS)),)
$(error PROBE changes nothing here: it goes with plan (`make` measures by itself))
endif
endif

# FORMAT, PROBE and PYTHON are checked here, for they reach a command line; their text still goes through the environment.
ifneq ($(call given,FORMAT),)
override FORMAT := $(value FORMAT)
ifeq ($(filter text ids,$(FORMAT)),)
$(error FORMAT: give text or ids)
endif
endif
FORMAT ?= text

ifneq ($(call given,PROBE),)
override PROBE := $(value PROBE)
ifeq ($(filter y n,$(PROBE)),)
$(error PROBE: give y or n)
endif
else
override PROBE := n
endif

ifneq ($(call given,PYTHON),)
override PYTHON := $(value PYTHON)
ifeq ($(strip $(value PYTHON)),)
$(error PYTHON= is given but empty: name an interpreter or leave it out)
endif
READY :=
TESTABLE :=
else ifneq ($(and $(value VIRTUAL_ENV),$(wildcard $(value VIRTUAL_ENV)/bin/python)),)
override PYTHON := $(value VIRTUAL_ENV)/bin/python
READY :=
TESTABLE :=
else
override PYTHON := .venv/bin/python
READY := .venv/installed
TESTABLE := .venv/testable
endif
export PYTHON
RUN := "$$PYTHON"

.PHONY: all venv menuconfig savedefconfig olddefconfig list-defconfigs plan run continue rerun-failed \
	report update-graphs audit data docs gputop check check-all check-torch check-lowest bench bench-spine bench-core bench-models bench-monitor clean mrproper help

all: run

# What pip fetches is said as it comes, with its size. A pipe has the status of its last command, so pip's goes aside.
define install
@{ .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -e '$(1)'; echo $$? > .venv/status; } \
	| awk '/^ *(Downloading|Using cached) .* [MG]B\)$$/ { n = split($$(NF - 2), at, "/"); print " ", at[n], $$(NF - 1), $$NF; fflush() }'
@test "$$(cat .venv/status)" = 0
@rm .venv/status
@touch $@
endef

venv: .venv/installed

.venv/installed: pyproject.toml
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: python3 is older than 3.11" >&2; exit 2; }
	@test -x .venv/bin/python || { echo "making .venv"; python3 -m venv .venv; }
	@echo "installing what pyproject.toml lists into .venv, some minutes. torch is the large one: 0.2 GB where the index"
	@echo "has a build for the CPU alone, 3 GB with CUDA's libraries. What is over 1 MB:"
	$(call install,.)
	@echo "installed: .venv has $$(du -sh .venv | cut -f1)"

# Also where the packages of a run have been installed anew.
.venv/testable: .venv/installed
	@echo "installing what the tests need besides"
	$(call install,.[dev])

menuconfig: $(READY) ## choose what runs in a full-screen menu
	@$(RUN) scripts/config.py menuconfig
# The stem goes through the environment too: in the recipe's own line the shell would expand it.
defconfig-%: export PRESET = $*
defconfig-%: $(READY) ## take a preset as .config
	@$(RUN) scripts/config.py defconfig "$$PRESET"
savedefconfig: $(READY) ## write .config in its shortest form to ./defconfig
	@$(RUN) scripts/config.py savedefconfig
olddefconfig: $(READY) ## complete .config, and name the lines it cannot keep
	@$(RUN) scripts/config.py olddefconfig
list-defconfigs: $(READY) ## the presets, and the question each answers
	@$(RUN) scripts/config.py list
plan: $(READY) ## what would run, memory, time (FORMAT=ids, PROBE=y: measure)
	@$(RUN) scripts/matrix.py plan --format "$$FORMAT" --probe "$$PROBE"
run: $(READY) ## run the matrix of .config, then write the report
	@$(RUN) scripts/matrix.py run
continue: $(READY) ## do what is left of the newest results
	@$(RUN) scripts/matrix.py continue
rerun-failed: $(READY) ## run the failed runs of a results directory again
	@$(RUN) scripts/matrix.py rerun-failed
report: $(READY) ## rebuild report and graphs of the newest results
	@$(RUN) scripts/report.py report
update-graphs: $(READY) ## rebuild the graphs alone
	@$(RUN) scripts/report.py graphs
audit: $(READY) ## which scores of state pruning agree on these runs
	@$(RUN) scripts/audit.py
data: $(READY) ## check the data sets of .config, download what is missing
	@$(RUN) scripts/data.py
docs: $(READY) ## write the tables of README and docs from docs/results
	@$(RUN) scripts/docs.py
gputop: $(READY) ## the monitor, live: GPUs and host, and who uses them
	@$(RUN) scripts/gputop.py
WORKERS := -n auto --dist loadgroup --no-loadscope-reorder
check: $(TESTABLE) ## lint and tests: no GPU, no downloads
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m pytest $(WORKERS) -m "not slow"
check-all: check ## check, and the long tests
	@$(RUN) -m pytest $(WORKERS) -m slow
check-torch: $(READY) ## test with other versions, as TORCH="2.11.0 2.15.0"
	@$(RUN) scripts/versions.py torch
check-lowest: $(READY) ## test with the lowest versions of pyproject.toml
	@$(RUN) scripts/versions.py lowest
bench: bench-spine bench-core bench-models bench-monitor ## every benchmark
bench-spine: $(READY) ## start of a plan, the quickstart's time, overhead per run
	@$(RUN) scripts/bench_spine.py
bench-core: $(READY) ## update, step, selection and mask update against torch's own
	@$(RUN) scripts/bench_core.py
bench-models: $(READY) ## epochs and tokens against plain loops, start of a run
	@$(RUN) scripts/bench_models.py
bench-monitor: $(READY) ## CPU, slowdown and bytes of the monitor, first frame
	@$(RUN) scripts/bench_monitor.py
clean: ## remove caches; results and data stay
	@rm -rf .pytest_cache .ruff_cache .hypothesis build *.egg-info
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
mrproper: clean ## clean, and remove .config and .venv; results and data stay
	@rm -rf .config .config.old .venv .versions
help: ## this list
	@echo "AdamWPrune: make [target] [EPOCHS=n] [SEEDS=n] [MAX_ITERS=n] [DATA_DIR=dir]"
	@echo "    [RESULTS=dir: of these results, not the newest] [SET=\"NAME=value\"]"
	@echo "    [PYTHON=interpreter]"
	@sed -n 's/^\([a-z%-]*\):.*## \(.*\)/  \1|\2/p' Makefile | while IFS='|' read -r t d; do printf '  %-18s %s\n' "$$t" "$$d"; done
	@echo "Without a .config the preset quickstart runs: 11 small runs on embedded data."
export FORMAT PROBE
