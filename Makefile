PYTHON ?= python3
override VENV := .venv
override BIN := $(VENV)/bin

# What a user gives reaches the shell through the environment, as text: nothing in it is a command.
STUDIES ?= mnist-fixed mnist-annealed mnist-learned faces-learned faces-fixed
DEVICE ?= cuda
GIVEN := PYTHON NAMES STUDIES DEVICE URL BRANCH
$(foreach name,$(GIVEN),$(eval override $(name) := $$(value $(name))))
export $(GIVEN)

# Two test processes, one thread each.
OMP_NUM_THREADS ?= 1
export OMP_NUM_THREADS
STAMP := $(VENV)/.made-from

.PHONY: book pdf check test notebooks lab bench paper clean repository

book: $(STAMP)
	$(BIN)/python book/build.py

# The whole book as one file, _build/book.pdf; needs Chromium or Chrome.
pdf: book
	$(BIN)/python book/onefile.py

# The package, the notebooks' form and the pages; and every cell of every notebook against its stored output.
test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# In half a minute, while one works: the form of the code, and every test that is quick.
check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadfile -p no:nbval -o addopts=--strict-markers -m "not slow" tests -q

# NAMES="01_ppca 02_stability" executes only those.
notebooks: $(STAMP)
	$(BIN)/python book/build.py notebooks $$NAMES

lab: $(STAMP)
	$(BIN)/jupyter lab notebooks

bench: $(STAMP)
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

# The paper's deep experiments at its own scale, with a GPU; again, it goes on where it stopped. STUDIES="mnist-fixed"
# runs only that.
paper: $(STAMP)
	for study in $$STUDIES; do \
	  test -e "runs/$$study-paper.nc" && continue; \
	  command=$$(ls "runs/$$study-paper-"* >/dev/null 2>&1 && echo resume || echo run); \
	  $(BIN)/python -m helpers.studies $$command "$$study" --profile paper --device "$$DEVICE" || exit 1; \
	done

# make repository URL=https://github.com/OWNER/NAME [BRANCH=main]
repository: $(STAMP)
	@test -n "$$URL" || { echo 'say which: make repository URL=https://github.com/OWNER/NAME'; exit 2; }
	$(BIN)/python book/repository.py "$$URL" $${BRANCH:+--branch "$$BRANCH"}

clean:
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

$(STAMP): pyproject.toml requirements.lock
	@"$$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "The book needs Python 3.11, 3.12 or 3.13; say which with make PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || "$$PYTHON" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c requirements.lock -e '.[test]'
	touch $(STAMP)
