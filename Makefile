# Everything runs from a virtual environment in .venv; `make demo` and `make test` need nothing but Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: readers install demo test lint options docs picture sdist wheel sanitize fuzz clean

$(BIN)/snnconvert: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(BIN)/.test-installed: $(BIN)/snnconvert
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,docs]'
	touch $@

install: $(BIN)/snnconvert

demo: install
	mkdir -p demo
	cd demo && ../$(BIN)/snnconvert zoo:digits-resnet --timesteps 32

lint: $(BIN)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the table of options in docs/options.md
options: install
	$(BIN)/python -m snnconvert.cli.table docs/options.md

# the simulators that read NIR, each in an environment of its own, and every spike compared in them: docs/exports.md
READERS := .readers
readers: $(BIN)/.test-installed
	grep '^torch==' constraints.txt > build-readers.txt
	for reader in 'sinabs sinabs==3.1.3' 'spikingjelly spikingjelly==2.0.0 nir==1.0.8 nirtorch==2.6' \
		'norse norse==1.1.0' 'snntorch snntorch==1.0.0 nir==1.0.8 nirtorch==2.6'; do \
		set -- $$reader; name=$$1; shift; \
		$(PYTHON) -m venv $(READERS)/$$name && \
		$(READERS)/$$name/bin/pip install --quiet --constraint build-readers.txt torch "$$@" || exit 1; done
	rm build-readers.txt
	$(BIN)/python benchmarks/exports.py --environments $(READERS) --row digits-cnn --row digits-resnet --column nir --again

# the documentation as a site, in build/site: open build/site/index.html
docs: $(BIN)/.test-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# the README's picture of a report, in docs/images; needs Chromium
picture: install
	$(BIN)/python docs/site/picture.py

# what is published, in dist/; a wheel for this machine's system, whose tag says from which Linux on it runs
$(BIN)/.package-installed: $(BIN)/snnconvert
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[package]'
	touch $@

sdist: $(BIN)/.package-installed
	$(BIN)/python -m build --sdist --outdir dist .

wheel: $(BIN)/.package-installed
	rm -rf build/lib* build/bdist* build/temp* build/wheel
	$(BIN)/python -m build --wheel --outdir build/wheel .
	mkdir -p dist
	if [ "$$(uname)" = Linux ]; then PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist build/wheel/*.whl; \
	else cp build/wheel/*.whl dist; fi

test: lint
	$(BIN)/python -m pytest -n 2

# the native kernels' tests with sanitizers (GCC, Linux), on a copy: some five minutes
SANITIZED := build/sanitized
sanitize: $(BIN)/.test-installed
	rm -rf $(SANITIZED)
	mkdir -p $(SANITIZED)
	cp -r snnconvert tests setup.py pyproject.toml README.md $(SANITIZED)
	rm -f $(SANITIZED)/snnconvert/simulate/kernels/_native* $(SANITIZED)/snnconvert/train/_native*
	cd $(SANITIZED) && SNNCONVERT_SANITIZE=1 $(abspath $(BIN))/python setup.py --quiet build_ext --inplace
	cd $(SANITIZED) && LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 SNNCONVERT_KERNELS=native PYTHONPATH=. $(abspath $(BIN))/python -m pytest -n 2 -q \
		-p no:cacheprovider tests/simulate/test_native_convolutions.py tests/simulate/test_kernels.py \
		tests/train/test_trained_neurons.py \
		tests/simulate/test_window_kernels.py tests/calibrate/test_trials.py

# mutations of every kind of file that is read, in watched processes: some half an hour; files of faults are kept
MUTATIONS ?= 10000
fuzz: $(BIN)/.test-installed
	$(BIN)/python tests/fuzz/fuzz_campaign.py --mutations $(MUTATIONS) --processes 2

clean:
	rm -rf $(VENV) demo build dist *.egg-info
