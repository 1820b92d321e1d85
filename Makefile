# PYTHON=python3.12 make ... picks another interpreter for the virtual environment.
PYTHON ?= python3
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)

.PHONY: demo test venv lint bench

demo: .venv/.ready
	.venv/bin/bigvit-edge export --target android -o dist/android --force

# One process a core, and one thread in each: two threads on one core wait for each other.
test: .venv/.ready
	OMP_NUM_THREADS=1 .venv/bin/pytest -n logical --dist loadfile

venv: .venv/.ready

lint: .venv/.ready
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	find runtime kernels_arm tests -name '*.cc' -o -name '*.h' -o -name '*.inc' | xargs -r .venv/bin/clang-format --dry-run -Werror

bench: .venv/.ready
	.venv/bin/python tests/bench_models.py

# torch goes first and pinned: a looser request may choose another build and gigabytes of libraries with it.
.venv/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo 'met: $(PYTHON) is missing, or is not Python 3.11 or 3.12; do: make $(MAKECMDGOALS) PYTHON=python3.11'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo 'met: $(PYTHON) has no venv module; do: apt-get install python3-venv'; exit 1; }
	@echo 'setting up .venv: 2.7 GB, minutes'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet $(TORCH)
	.venv/bin/python -m pip install --quiet -e '.[all,dev]'
	touch $@
