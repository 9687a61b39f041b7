# Everything here needs Python 3.11, 3.12 or 3.13 and make; the rest is installed into $(VENV).
SUITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c '$(SUITS)' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test long slow coverage lint docs format install clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml plugins/image/pyproject.toml plugins/audio/pyproject.toml plugins/video/pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[test,lint,docs,sweep,slurm,onnx,hub]" -e "plugins/image[features]" -e "plugins/audio[test]" -e plugins/video
	@touch $@

demo: install  ## both stages on procedural shapes, then samples
	@rm -rf outputs/demo
	@start=$$(date +%s); \
	$(BIN)/toolkit train experiment=image_shapes_residual hydra.run.dir=outputs/demo && \
	$(BIN)/toolkit evaluate run=outputs/demo && \
	$(BIN)/toolkit reconstruct run=outputs/demo && \
	$(BIN)/toolkit sample run=outputs/demo n=72 guidance=3 temperature=0.85 \
	    condition.shape=circle,square,triangle,hexagon,star,ring,crescent,cross,heart \
	    condition.color=red,orange,yellow,green,teal,blue,purple,pink && \
	$(BIN)/toolkit report run=outputs/demo && \
	echo "the demo took $$(( $$(date +%s) - start )) s; open the report:" && \
	ls outputs/demo/report.html

# One process per core, up to eight; a file's tests share what they train, so they stay in one process.
SIDE_BY_SIDE := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# Every process, and every command that tests start, would else compile the same files again: a quarter of a minute each.
test long slow: export PYTHONDONTWRITEBYTECODE =

test: install  ## the quick tests of all there is, planted faults among them
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

long: install  ## the tests of over a second, which CI runs besides
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "long and not slow"

slow: install  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

coverage: install  ## which lines the tests run: a summary, and pages in build/coverage/html
	@mkdir -p build/coverage
	$(BIN)/python -m pytest --cov -m "not slow" --cov-report=term --cov-report=html

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install  ## the pages, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info plugins/*/build plugins/*/*.egg-info
