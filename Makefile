# Everything runs in a virtual environment of its own. For another one, or another Python:
#   make test VENV=$VIRTUAL_ENV          make demo PYTHON=python3.12
.POSIX:
PYTHON = python3
VENV = .venv
DEMO = runs/demo
BENCHMARK = runs/benchmark
BENCHMARK_VENV = .venv-benchmark
RUN = $(VENV)/bin/python
ADDONS_PYTHON = python3.11
ADDONS_VENV = .venv-addons
ADDONS = tests/reference/addons
DOCKER_VENV = .venv-docker
SERVING = runs/serving
SERVING_VENV = .venv-serving
DOCS_VENV = .venv-docs
RELEASE_VENV = .venv-release
STAMP = $(VENV)/.deq_keras-installed
# Two processes, a file in one of them, so that the models that a file builds are built once;
# tests/conftest.py says which file is first.
PYTEST_FLAGS = -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-slow lint docs docs-test lint-docker lock-docker serving-test wheel \
  release-check addons-reference benchmark clean

help:
	@echo 'make demo       train and compare both methods on a small problem; writes $(DEMO)/report.html'
	@echo 'make test       what must pass: style, then the tests that are not slow'
	@echo 'make test-slow  the slow tests'
	@echo 'make lint       style only (ruff check, ruff format --check)'
	@echo 'make docs       the documentation, into build/site (mkdocs in $(DOCS_VENV))'
	@echo 'make docs-test  the same with all examples of the gallery run anew, and what the pages load'
	@echo 'make lint-docker  check the files of docker/ (validators in $(DOCKER_VENV))'
	@echo 'make lock-docker  the versions that the images install, anew'
	@echo 'make serving-test  exported models behind a real Triton, under load (in $(SERVING_VENV))'
	@echo 'make wheel      build the wheel of the library into dist/'
	@echo 'make release-check  what PyPI and conda get: built, checked, installed in an empty place'
	@echo 'make addons-reference  what tensorflow-addons computes, for the tests (in $(ADDONS_VENV))'
	@echo 'make benchmark  measure it, against other libraries too, an hour; writes $(BENCHMARK)'
	@echo 'make clean      remove what was built and cached ($(VENV) and runs/ stay)'
	@echo
	@echo 'The first of them makes $(VENV) and installs into it; a TensorFlow found there is kept.'
	@echo 'The benchmark has $(BENCHMARK_VENV), for PyTorch, JAX and the rest take some gigabytes.'
	@echo 'Variables: PYTHON=$(PYTHON) VENV=$(VENV) DEMO=$(DEMO)'
	@echo '           PYTEST_FLAGS="$(PYTEST_FLAGS)"'
	@echo '           BENCHMARK=$(BENCHMARK) BENCHMARK_VENV=$(BENCHMARK_VENV)'

demo: $(STAMP)
	$(RUN) -m experiments.compare --config=experiments/configs/demo.py --workdir=$(DEMO)
	@echo "The report: $$(cd $(DEMO) && pwd)/report.html"

test: lint
	$(RUN) -m pytest $(PYTEST_FLAGS)

test-slow: $(STAMP)
	$(RUN) -m pytest $(PYTEST_FLAGS) -m slow

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

# The examples run where the programs do, and the pages are made in an environment of their own.
docs: $(STAMP) $(DOCS_VENV)/.installed
	$(RUN) -m docs.build_gallery
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --quiet --strict
	@echo "The documentation: $$(pwd)/build/site/index.html; to search in it, too:"
	@echo "$(PYTHON) -m http.server --directory build/site"

docs-test: $(STAMP) $(DOCS_VENV)/.installed
	rm -rf build/gallery build/site
	$(MAKE) docs
	$(RUN) -m docs.check_site build/site
	$(RUN) -m pytest -q tests/test_examples.py tests/docs

$(DOCS_VENV)/.installed: setup.py
	$(PYTHON) -m venv --clear $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	@touch $@

# None of the validators needs Docker, Kubernetes or Slurm.
COMPOSE = DEQ_KERAS_IMAGES=docker $(DOCKER_VENV)/bin/docker-compose -f docker/compose.yaml
COMPOSE_SERVING = DEQ_KERAS_MODELS=docker $(DOCKER_VENV)/bin/docker-compose --profile triton \
  -f docker/serving/compose.yaml
lint-docker: $(DOCKER_VENV)/.installed
	$(DOCKER_VENV)/bin/hadolint docker/Dockerfile docker/serving/triton/Dockerfile
	$(DOCKER_VENV)/bin/yamllint --strict -c docker/lint/yamllint.yaml docker
	$(COMPOSE) config --quiet
	$(COMPOSE) -f docker/compose.gpu.yaml config --quiet
	$(COMPOSE_SERVING) config --quiet
	$(COMPOSE_SERVING) -f docker/serving/compose.batching.yaml config --quiet
	$(DOCKER_VENV)/bin/python docker/lint/check_manifest.py docker/tfjob.yaml docker/serving/kserve.yaml
	$(DOCKER_VENV)/bin/shellcheck docker/slurm.sh docker/serving/*/healthcheck.sh

# The newest versions that setup.py allows, for Python 3.12 on Linux, x86-64, as in the Dockerfile.
LOCK = UV_CUSTOM_COMPILE_COMMAND='make lock-docker' \
  UV_PYTHON_DOWNLOADS=never $(DOCKER_VENV)/bin/uv pip compile --quiet --upgrade --no-annotate \
  --generate-hashes --python-version 3.12 --python-platform x86_64-manylinux_2_28
lock-docker: $(DOCKER_VENV)/.installed
	for extra in cpu gpu; do \
	  $(LOCK) --extra $$extra --extra train -o docker/requirements-$$extra.txt setup.py || exit 1; \
	done
	printf 'setuptools\nwheel\n' | \
	  $(LOCK) -c docker/requirements-cpu.txt -o docker/requirements-build.txt -
	printf 'tensorflow-cpu\n' | \
	  $(LOCK) -c docker/requirements-cpu.txt -o docker/serving/triton/requirements.txt -

$(DOCKER_VENV)/.installed: docker/lint/requirements.txt
	$(PYTHON) -m venv --clear $(DOCKER_VENV)
	$(DOCKER_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r docker/lint/requirements.txt
	@touch $@

# Three small models are trained for three steps, exported, and served by the tritonserver of a package.
serving-test: $(STAMP) $(SERVING_VENV)/.installed
	rm -rf $(SERVING)
	for task in denoising inpainting fourier; do \
	  $(RUN) -m experiments.train --config=experiments/configs/train_demo.py \
	    --workdir=$(SERVING)/$$task --config.task=$$task --config.train.epochs=1 \
	    --config.train.steps_per_epoch=3 && \
	  $(RUN) -m experiments.export --workdir=$(SERVING)/$$task \
	    --output=$(SERVING)/models/$$task || exit 1; \
	done
	$(SERVING_VENV)/bin/python tests/serving/check_triton.py --programs=$(RUN) $(SERVING)/models/*

$(SERVING_VENV)/.installed: tests/serving/requirements.txt
	$(PYTHON) -m venv --clear $(SERVING_VENV)
	$(SERVING_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r tests/serving/requirements.txt
	@touch $@

wheel: $(STAMP)
	rm -rf build
	$(RUN) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	rm -rf build
	@ls dist

# `empty` gets the wheel and a TensorFlow, nothing else, and runs the README's example there.
release-check: $(RELEASE_VENV)/.installed
	rm -rf dist build/release
	$(RELEASE_VENV)/bin/cffconvert --validate
	$(RELEASE_VENV)/bin/python -c "import rattler_build as r; \
	  r.Stage0Recipe.from_file('conda/recipe.yaml').render()"
	$(RELEASE_VENV)/bin/python -m build --quiet --outdir dist .
	$(RELEASE_VENV)/bin/python -m twine check --strict dist/*
	$(PYTHON) -m venv build/release
	build/release/bin/python -m pip install --quiet --disable-pip-version-check \
	  "$$(ls dist/*.whl)[cpu]"
	build/release/bin/python -m pip check
	$(RELEASE_VENV)/bin/python docs/readme_example.py > build/release/example.py
	cd build/release && bin/python example.py
	@ls dist

$(RELEASE_VENV)/.installed: setup.py
	$(PYTHON) -m venv --clear $(RELEASE_VENV)
	$(RELEASE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[release]"
	@touch $@

# The file is committed; this makes it again. Its old TensorFlow needs Python 3.10 or 3.11.
addons-reference: $(ADDONS_VENV)/.installed
	$(ADDONS_VENV)/bin/python $(ADDONS)/make_reference.py $(ADDONS)/addons_reference.npz

$(ADDONS_VENV)/.installed: $(ADDONS)/requirements.txt
	@$(ADDONS_PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))' || { \
	  echo 'tensorflow-addons needs Python 3.10 or 3.11; $(ADDONS_PYTHON) is missing or another.' \
	    'Name one with: make addons-reference ADDONS_PYTHON=python3.10'; exit 1; }
	$(ADDONS_PYTHON) -m venv --clear $(ADDONS_VENV)
	$(ADDONS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r $(ADDONS)/requirements.txt
	@touch $@

# The peers are installed on top of what the other programs need. A PyTorch that is in
# $(BENCHMARK_VENV) already, such as a smaller build for the CPU, is kept.
benchmark: $(BENCHMARK_VENV)/.deq_keras-peers-installed
	for suite in peers paper scaling solvers "priors --size=128" distributed; do \
	  $(BENCHMARK_VENV)/bin/python -m benchmarks --suite=$$suite \
	    --output=$(BENCHMARK)/$${suite%% *}.json || exit 1; \
	done

$(BENCHMARK_VENV)/.deq_keras-peers-installed: setup.py
	@$(MAKE) VENV=$(BENCHMARK_VENV) $(BENCHMARK_VENV)/.deq_keras-installed
	@echo "Installing deq_keras[benchmark] into $(BENCHMARK_VENV)"
	@PYTHONWARNINGS='ignore:Editable installation' $(BENCHMARK_VENV)/bin/python -m pip install \
	  --quiet --disable-pip-version-check -e ".[benchmark]"
	@touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find deq_keras trainers experiments benchmarks tests -type d -name __pycache__ -prune -exec rm -rf {} +

# The stubs of TensorFlow Serving's API, for the tests. They ask for the distribution `tensorflow`,
# which would put a second TensorFlow beside tensorflow-cpu: hence without what they ask for.
SERVING_API = 'tensorflow-serving-api>=2.20'

# Made anew when setup.py has changed. Several distributions hold the module `tensorflow`, so one
# that is there is kept, wherever it came from. (An older pip gets lost on some mirrors.)
$(STAMP): setup.py
	@if [ ! -x $(RUN) ]; then \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo 'deq_keras needs Python 3.10 or newer; $(PYTHON) is missing or older.' \
	      'Name one with: make PYTHON=python3.12'; exit 1; }; \
	  echo 'Making $(VENV)'; new=1; [ ! -e $(VENV) ] || new=0; \
	  $(PYTHON) -m venv $(VENV) || { \
	    [ $$new = 0 ] || rm -rf $(VENV); \
	    echo '$(PYTHON) -m venv failed; on Debian and Ubuntu install python3-venv.'; exit 1; }; \
	fi
	@$(RUN) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo 'deq_keras needs Python 3.10 or newer, and $(VENV) has an older one: remove $(VENV).'; \
	  exit 1; }
	@extras=cpu,train,serve,test; \
	if $(RUN) -c 'import importlib.util as u, sys; sys.exit(u.find_spec("tensorflow") is None)'; \
	then extras=train,serve,test; fi; \
	echo "Installing deq_keras[$$extras] into $(VENV)"; \
	$(RUN) -m pip install --quiet --disable-pip-version-check 'pip>=24.1' && \
	PYTHONWARNINGS='ignore:Editable installation' \
	$(RUN) -m pip install --quiet --disable-pip-version-check -e ".[$$extras]" && \
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps $(SERVING_API) || { \
	  echo 'The installation failed. If no TensorFlow was found: there are builds for Python 3.10 to' \
	    '3.13. To use another Python, remove $(VENV) and run make PYTHON=python3.13'; exit 1; }
	@touch $(STAMP)
