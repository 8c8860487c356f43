PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

help: ## list what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## install everything into .venv, with the versions of constraints.txt

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV) || { echo "python -m venv failed; on Debian: apt-get install python3-venv"; exit 1; }
	$(VENV)/bin/pip install --quiet --constraint constraints.txt '.[test]'
	@touch $@

demo: setup ## train Mask2Former, PRO-SCALE and ECO-M2F's parent, small, and compare them: demo/table.md and demo/pictures (minutes)
	$(RUN) -m scripts.demo

notebooks: demo ## run the notebooks on the demo's results: demo/exits.ipynb and demo/trade_off.ipynb, pictures inside
	$(VENV)/bin/jupyter-execute notebooks/*.ipynb --output='../demo/{notebook_name}'

eco: setup ## ECO-M2F's three steps on made scenes: eco/table.md, curve.png, leavers.png (half an hour; SEEDS=3 for three parents)
	$(RUN) -m scripts.eco --seeds $(or $(SEEDS),1)

compare: setup ## train, score and time all models on DATA (camvid, animals, nyuv2) in ROOT: runs/compare/DATA/table.md (a day)
	OMP_NUM_THREADS=1 $(RUN) -m scripts.compare $(or $(DATA),camvid) data.root=$(or $(ROOT),data/$(or $(DATA),camvid)) $(if $(WEIGHTS),model.backbone.pretrained=$(WEIGHTS)) $(if $(MODELS),--models $(MODELS))

sweep-schedule: setup ## train every schedule of conf/sweep/schedule.yaml on made scenes, and compare them
	$(RUN) -m src.train +experiment=proscale_shapes +sweep=schedule

sweep-beta: setup ## train a gate for each beta of conf/sweep/beta.yaml from TABLE (default: that of make eco)
	$(RUN) -m src.train +experiment=eco_gate_shapes +sweep=beta data.table=$(or $(TABLE),eco/mask2former_seed0/label_train/table)

drill: setup ## kill runs at random moments and start them again: drill/kills.md (10 to 20 minutes; KILLS=30)
	$(RUN) -m scripts.drill --kills $(or $(KILLS),30)

report: setup ## RUNS="folders": runs as a page, a curve and a table in report/
	$(RUN) -m src.report $(or $(RUNS),runs)

measure: setup ## CKPT=file ARGS="settings": time every exit on this machine, for budgets in milliseconds
	$(RUN) -m src.measure ckpt_path=$(CKPT) $(ARGS)

plan: setup ## BUDGET=budget_ms=40 RUNS="folders": what to deploy within a budget: plan/plan.md
	$(RUN) -m src.plan $(or $(RUNS),runs) $(BUDGET) out=plan

judge: setup ## TABLE=folder GATES="files" AGAIN=folder: do gates beat fixed exits and chance: judged/judge.md
	$(RUN) -m src.judge $(TABLE) $(GATES) $(if $(AGAIN),--again $(AGAIN)) --out judged

export: setup ## CKPT=file: a trained model as ONNX files, with what runs them, in OUT (default: exported)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt '.[export]'
	$(RUN) -m src.export ckpt_path=$(CKPT) out=$(or $(OUT),exported) $(ARGS)

docs: setup ## the documentation as a searchable site that works offline, every link checked: build/site/index.html
	$(VENV)/bin/pip install --quiet --constraint constraints.txt '.[docs]'
	$(RUN) docs/site/build.py

published: setup ## print every published cost figure beside ours
	$(RUN) -m scripts.published

benchmark: setup ## time inference and training beside transformers', by part: benchmark/benchmark.md (ARGS="inference --rounds 9")
	$(RUN) -m scripts.benchmark $(ARGS)

test: setup ## run all tests, or those of TESTS=path
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n auto --dist loadfile --no-loadscope-reorder $(TESTS)

test-fast: setup ## run the tests that neither train nor start processes (a minute and a half on two idle cores)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n auto --dist loadfile -m "not slow" $(TESTS)

check: setup ## format, lint and types, as CI checks them
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: setup ## format and mend what the linter can
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

smoke: setup ## every experiment: one step of training and one validation on made scenes
	$(MAKE) test TESTS=tests/test_experiments.py

clean: ## remove the environment, runs, the demo's results and the benchmark's
	rm -rf $(VENV) runs demo drill eco report plan judged benchmark .pytest_cache .mypy_cache .ruff_cache build *.egg-info

.PHONY: help setup demo notebooks eco compare drill sweep-schedule sweep-beta report measure plan judge export docs published benchmark test test-fast check format smoke clean
.DEFAULT_GOAL := help
