# PYTHON=python3.12 make ... picks another interpreter for the virtual environment.
PYTHON ?= python3
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)

# BVE_CI=1: a warning of the compiler is an error, and so is a C++ test that cannot be run.
CLANG ?= $(firstword $(foreach name,clang++-19 clang++,$(shell command -v $(name))))
ZIG = $(wildcard $(CURDIR)/.venv/lib/python3*/site-packages/ziglang/zig)
CMAKE = PATH="$(CURDIR)/.venv/bin:$$PATH" cmake
CONFIGURE = $(CMAKE) -S . -G Ninja -DBVE_WERROR=$(or $(BVE_CI),OFF)
ARM = CXX="$(ZIG) c++ -target aarch64-linux-musl" $(CONFIGURE) -B build/aarch64 \
	-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DBVE_STATIC=ON
FUZZ_SECONDS ?= 60
COMMA = ,

define sanitize
	CXX="$(CLANG)" $(CONFIGURE) -B build/$(1) -DBVE_TESTS=ON -DBVE_SANITIZE=$(2)
	$(CMAKE) --build build/$(1)
	for program in build/$(1)/tests/$(3)/test_*; do echo $$program; $$program --minimal || exit 1; done
endef

.PHONY: demo test venv lint bench native native-arm bve-run-arm sanitize fuzz

demo: .venv/.ready
	.venv/bin/bigvit-edge export --target android -o dist/android --force

# One process a core, and one thread in each: two threads on one core wait for each other. The library is what was built
# just now, not what the virtual environment was set up with.
test: native $(if $(shell command -v qemu-aarch64),native-arm)
	BVE_LIBRARY=$(CURDIR)/build/host/libbve.so OMP_NUM_THREADS=1 .venv/bin/pytest -n logical --dist loadfile

# The core and its tests for this machine, and for ARM as static programs that qemu can run.
native: .venv/.ready
	CXX="$(CXX)" $(CONFIGURE) -B build/host -DBVE_TESTS=ON
	$(CMAKE) --build build/host

native-arm: .venv/.ready
	$(ARM) -DBVE_TESTS=ON
	$(CMAKE) --build build/aarch64

# build/aarch64/bve-run: one file for any 64-bit ARM Linux or Android. zig builds its own C and C++ library first: minutes.
bve-run-arm: .venv/.ready
	$(ARM)
	$(CMAKE) --build build/aarch64 --target bve-run

# The thread sanitizer is for what has threads.
sanitize: .venv/.ready
	$(call sanitize,address,address$(COMMA)undefined,*)
	$(call sanitize,thread,thread,runtime)

fuzz: .venv/.ready
	CXX="$(CLANG)" $(CONFIGURE) -B build/fuzz -DBVE_FUZZ=ON -DBVE_SANITIZE=address,undefined
	$(CMAKE) --build build/fuzz --target runtime_fuzz_program
	mkdir -p build/fuzz/found
	build/fuzz/tests/runtime/fuzz_program -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/fuzz/ \
		build/fuzz/found tests/runtime/corpus

venv: .venv/.ready

lint: .venv/.ready
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	find runtime kernels_arm tests -name '*.cc' -o -name '*.h' | xargs -r .venv/bin/clang-format --dry-run -Werror

bench: .venv/.ready
	.venv/bin/python tests/bench_models.py

# torch goes first and pinned: a looser request may choose another build and gigabytes of libraries with it.
.venv/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo 'met: $(PYTHON) is missing, or is not Python 3.11 or 3.12; do: make $(MAKECMDGOALS) PYTHON=python3.11'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo 'met: $(PYTHON) has no venv module; do: apt-get install python3-venv'; exit 1; }
	@command -v $(CXX) >/dev/null || { echo 'met: no C++ compiler $(CXX); do: apt-get install g++'; exit 1; }
	@echo 'setting up .venv: 2.7 GB, minutes'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet $(TORCH)
	.venv/bin/python -m pip install --quiet -e '.[all,dev]'
	touch $@
