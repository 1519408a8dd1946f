PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
INSTALL = uv pip install --quiet --compile-bytecode --python .venv/bin/python

.PHONY: all help env ensemble study report test test-docs test-faults test-study bench study-cost at-work frameworks v5 lock
all: .venv/main.done ## create the environment and run the stages that are out of date (the default)
	@test -s .dvc/tmp/rwlock || rm -f .dvc/tmp/rwlock # DVC cannot read it empty, as a kill may leave it
	dvc repro

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s  %s\n", $$1, $$2 }' Makefile

env: .venv/main.done ## create the environment only

v5: .venv/main.done ## train v5, which takes longest, so that `make` leaves it out
	mlflow run . -P version=5

# Forced, because git has the table of its trials, but not their networks.
ensemble: all ## train five networks of v4 and v5 and score their mean: about an hour
	dvc repro --force --single-item studies/dvc.yaml:study@ensemble

study: .venv/study.done ## train what is missing of the studies over seeds, with Ray: up to hours
	dvc repro studies/dvc.yaml:study@reproduction studies/dvc.yaml:study@accuracy

report: .venv/dev.done ## write the committed tables and pages anew, with the times of this machine
	digits report metrics --timing data/timing --machine data/machine
	python docs/generate.py

test: .venv/dev.done ## run ruff, mypy and the tests
	ruff format --check .
	ruff check .
	mypy
	pytest -n 2 --dist loadfile

test-docs: .venv/dev.done ## run the commands that the documentation shows
	pytest -n 2 -m docs tests/test_docs.py

test-faults: .venv/dev.done ## run the tests that kill processes and fill disks: minutes
	pytest -n 2 --dist loadfile --no-loadscope-reorder -m faults --counts=metrics/faults.json

test-study: $(patsubst %,.venv/%.done,dev study s3 ssh moto server) ## run the tests of Ray, a server and remotes
	pytest -n 2 --dist loadfile -m study

# A quick look: make bench BENCH="--images 5000 --epochs 2 --repeats 1 --out /tmp/speed.json"
bench: .venv/bench.done ## measure the speed of training: about a quarter of an hour
	python benchmarks/bench.py $(BENCH)
	@python benchmarks/render.py

study-cost: .venv/study.done ## measure what a study costs
	python benchmarks/study_cost.py
	@python benchmarks/render.py

at-work: .venv/dev.done ## measure the models on other pictures, and served: about 5 minutes
	python benchmarks/champion_at_work.py
	@python benchmarks/render.py

# One version: make frameworks FRAMEWORKS="--version v3"
# A few of them: make frameworks FRAMEWORKS="pytorch jax --images 6000 --seeds 1 --out /tmp/f.json"
frameworks: .venv/dev.done ## measure other frameworks against ours, each in .venv/frameworks: hours
	dvc repro --quiet fetch
	python benchmarks/compare_frameworks.py $(FRAMEWORKS)

.venv/main.done: requirements/main.txt requirements/uv.txt pyproject.toml python_env.yaml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11, 4) <= sys.version_info < (3, 14))' || \
	  { echo "make: $(PYTHON) is not Python 3.11.4 to 3.13; name one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(INSTALL) --require-hashes -r requirements/main.txt
	$(INSTALL) --no-deps --editable .
	@digits mlflow-env . > /dev/null || true # `mlflow run --env-manager local` does without it
	@touch $@

# The environment of an MLflow server for a team.
.venv/server.done: .venv/main.done server/requirements.txt
	$(PYTHON) -m venv .venv/server
	$(INSTALL:.venv/bin/python=.venv/server/bin/python) --require-hashes -r server/requirements.txt
	@touch $@

.venv/%.done: .venv/main.done requirements/%.txt
	$(INSTALL) --require-hashes -r requirements/$*.txt
	@touch $@

COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --custom-compile-command "make lock" --upgrade
lock: ## pin the dependencies anew
	$(COMPILE) pyproject.toml -o requirements/main.txt
	for extra in dev bench study s3 gs azure ssh moto; do \
	  $(COMPILE) pyproject.toml --extra $$extra -c requirements/main.txt -o requirements/$$extra.txt; done
	$(COMPILE) server/requirements.in -o server/requirements.txt
	echo 'uv==0.13.8' | $(COMPILE) - -o requirements/uv.txt

.DEFAULT:
	$(error no target or file "$@"; `make help` lists the targets)
