# make demo    read one chapter aloud with the bundled voice, into out/demo/ (what another voice or version read goes)
# make test    lint, types and tests
# Both set up .venv first; the stamps inside it make that quick from the second time on.
# make pin-images [REGISTRY=registry.example.com/speech]    write the digests of images into deploy/ (docs/serving.md)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.flowtts-base
DEV := $(VENV)/.flowtts-dev
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: setup demo test lint format tree slow pin-images clean

setup: $(DEV)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(BASE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing FlowTTS and what it needs into $(VENV): some minutes the first time"
	$(PIP) -e .
	touch $@

# Resemblyzer goes in without its dependencies: they are in the extra, with a webrtcvad that imports (see pyproject.toml).
# So does pyopenjtalk-plus, whose sudachidict_core is large and needed for rare kanji alone.
$(DEV): $(BASE)
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps resemblyzer
	$(PIP) --no-deps pyopenjtalk-plus sudachipy
	$(PIP) pesq || echo "pesq did not compile (is there a C compiler?): its tests will be skipped"
	touch $@

demo: $(BASE)
	$(BIN)/flowtts synthesize jobs/demo/alice-chapter-1.txt -o out/demo --overwrite
	@echo "Listen: open the audio files in out/demo/"

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two processes, each with files of its own, since fixtures are shared within a file. One that dies ends the run.
test: lint
	$(BIN)/pytest -n 2 --dist loadfile --max-worker-restart 0

slow: $(DEV)
	$(BIN)/pytest -m slow

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tree: $(DEV)
	$(BIN)/python -m tests.tree

pin-images:
	$(PYTHON) deploy/pin_images.py $(REGISTRY)

clean:
	rm -rf $(BASE) $(DEV) out .pytest_cache .mypy_cache .ruff_cache
