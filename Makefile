# PYTHON=python3.12 make ... picks another interpreter for the virtual environment; else the first that will do.
PYTHON ?= $(or $(shell .ci/install-tools python),python3)
TORCH := $(shell sed -n 's/^export = .*"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
EXECUTORCH := $(shell sed -n 's/^executorch = .*\("executorch==[^]]*\)\]/\1/p' pyproject.toml | tr -d ,)

# BVE_CI=1: a warning of the compiler is an error, and so are a door that cannot be built and a C++ test that cannot be
# run.
CLANG ?= $(firstword $(foreach name,clang++-19 clang++,$(shell command -v $(name))))
ZIG = $(wildcard $(CURDIR)/.venv/lib/python3*/site-packages/ziglang/zig)
CMAKE = PATH="$(CURDIR)/.venv/bin:$$PATH" cmake
CONFIGURE = $(CMAKE) -S . -G Ninja -DBVE_WERROR=$(or $(BVE_CI),OFF)
WITH_DOORS = -DBVE_TESTS=ON -DBVE_ALL_DOORS=$(or $(BVE_CI),OFF)
FOR_PYTHON = -DPython_EXECUTABLE="$(CURDIR)/.venv/bin/python"
ARM_GNU = aarch64-linux-gnu-g++
# tests/make_arm64_root.sh asks for Debian's packages, by the names they have in 12 and 13
IS_DEBIAN = $(shell grep -sE '^VERSION_CODENAME=(bookworm|trixie)$$' /etc/os-release)
CAN_EMULATE = $(and $(shell command -v $(ARM_GNU)),$(IS_DEBIAN))
STATIC = CXX="$(ZIG) c++ -target $(1)-linux-musl" $(CONFIGURE) -B build/$(1) \
	-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=$(1) -DBVE_STATIC=ON
# The oldest glibc that a wheel runs on: Debian 10's. Wheels of numpy ask for as much.
WHEEL_GLIBC = 2.28
WHEELS = dist/wheels
TFLITE_RUNTIME = tflite-runtime==2.14.0 numpy==1.26.4
OTHER_EXECUTORCH = executorch==1.3.1
MEDIAPIPE = mediapipe==1.2.3
FUZZ_SECONDS ?= 90
FUZZERS = program frame picture
AXE = axe-core@4.10.3
COMMA = ,

define sanitize
	CXX="$(CLANG)" $(CONFIGURE) -B build/$(1) $(WITH_DOORS) $(FOR_PYTHON) -DBVE_SANITIZE=$(2)
	$(CMAKE) --build build/$(1)
	programs=$$(find build/$(1)/tests/$(3) -name 'test_*' -type f); \
	: $${programs:?no test was built in build/$(1)}; \
	export BVE_TINY_PTE=build/tiny.pte BVE_DISPATCH_PTE=build/dispatch.pte BVE_TINY_TFLITE=build/tiny.tflite; \
	echo $$programs | xargs -t -n 1 -P $$(nproc) sh -c '"$$0" --minimal'
endef

.PHONY: demo test tests fetched venv lint conformance bench native native-arm doors-arm tflite-runtime other-executorch mediapipe \
	device-roots board-root npm-packages transformers-js swift-root bve-run-arm wheels sanitize fuzz $(FUZZERS:%=fuzz-%)

demo: .venv/.ready
	.venv/bin/bigvit-edge export --target android -o dist/android --force

# The system's packages first, for what follows is chosen by what is there. Two at once: what waits for the network goes
# beside what compiles.
test:
	@.ci/install-tools test
	@$(MAKE) --no-print-directory -j2 tests

# One process a core, and one thread in each: two threads on one core wait for each other. The library is what was built
# just now, not what the virtual environment was set up with.
tests: native fetched $(if $(shell command -v qemu-aarch64),native-arm $(if $(CAN_EMULATE),doors-arm))
	BVE_LIBRARY=$(CURDIR)/build/host/libbve.so OMP_NUM_THREADS=1 .venv/bin/pytest -n logical --dist worksteal

# What tests need of others: got and unpacked, nothing is compiled.
fetched: tflite-runtime other-executorch mediapipe $(if $(CAN_EMULATE),build/arm64-root/.ready) \
	$(if $(IS_DEBIAN),device-roots board-root) $(if $(shell command -v npm),npm-packages)

# The core and its tests for this machine, and for ARM as static programs that qemu can run.
native: .venv/.ready
	CXX="$(CXX)" $(CONFIGURE) -B build/host $(WITH_DOORS) $(FOR_PYTHON)
	$(CMAKE) --build build/host

native-arm: .venv/.ready
	$(call STATIC,aarch64) -DBVE_TESTS=ON
	$(CMAKE) --build build/aarch64

# The doors and their tests for ARM. Not by zig: what crosses ExecuTorch's interface is laid out as in libstdc++.
doors-arm: .venv/.ready build/arm64-root/.ready
	CXX=$(ARM_GNU) $(CONFIGURE) -B build/aarch64-linux -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
		$(WITH_DOORS) -DBVE_EXECUTORCH="$(CURDIR)/build/arm64-root/executorch/executorch"
	$(CMAKE) --build build/aarch64-linux --target doors

# What qemu runs them on: a minute.
build/arm64-root/.ready: tests/make_arm64_root.sh | .venv/.ready
	tests/make_arm64_root.sh build/arm64-root .venv/bin/python $(TFLITE_RUNTIME)

# The machines of tests/devices: one behind an sshd, one behind an adbd; half a minute.
device-roots: build/devices/.ready
build/devices/.ready: tests/make_device_roots.sh tests/unpack_debian.sh
	tests/make_device_roots.sh build/devices

# A board, where tests/test_board.py installs the wheel of `make wheels`.
board-root: build/board-root/.ready
build/board-root/.ready: tests/make_board_root.sh tests/unpack_debian.sh
	tests/make_board_root.sh build/board-root

# What tests/swift.py builds Swift packages in: Swift 6 of Debian 13, 2.4 GB in a minute and a half. No other
# target asks for it.
swift-root: build/swift-root/.ready
build/swift-root/.ready: tests/make_swift_root.sh tests/unpack_debian.sh
	tests/make_swift_root.sh build/swift-root

# The older of LiteRT's runtimes, which wants an older numpy: a folder for PYTHONPATH. There is none for Python 3.12.
tflite-runtime: build/tflite_runtime/.ready
build/tflite_runtime/.ready: Makefile | .venv/.ready
	mkdir -p $(@D)
	if .venv/bin/python -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then \
		.venv/bin/python -m pip install -q --no-deps --upgrade --target $(@D) $(TFLITE_RUNTIME); fi
	touch $@

# An older ExecuTorch, for the door whose source an app compiles against its own: 100 MB.
other-executorch: build/other_executorch/.ready
build/other_executorch/.ready: Makefile | .venv/.ready
	mkdir -p $(@D)
	.venv/bin/python -m pip install -q --no-deps --upgrade --target $(@D) $(OTHER_EXECUTORCH)
	touch $@

# What takes .tflite files of pixels as they are, without what it draws with: 130 MB.
mediapipe: build/mediapipe/.ready
build/mediapipe/.ready: Makefile | .venv/.ready
	mkdir -p $(@D)
	.venv/bin/python -m pip install -q --no-deps --upgrade --target $(@D) $(MEDIAPIPE)
	touch $@

# What looks at the app's pages for those who cannot see them: in a browser, by tests/app.
npm-packages: build/npm/.ready
build/npm/.ready: Makefile
	npm install --silent --ignore-scripts --no-audit --no-fund --prefix $(@D) $(AXE)
	touch $@

# transformers.js, which tests run on .onnx files in Node; CONTRIBUTING.md has its size. No other target asks for it.
transformers-js: build/transformers_js/.ready
build/transformers_js/.ready: tests/onnx_libraries.py | .venv/.ready
	.venv/bin/python -m tests.onnx_libraries $(@D)
	touch $@

# build/aarch64/bve-run: one file for any 64-bit ARM Linux or Android. zig builds its own C and C++ library first: minutes.
bve-run-arm: build/programs/bve-run-aarch64
.PRECIOUS: build/programs/bve-run-%
build/programs/bve-run-%: .venv/.ready FORCE
	$(call STATIC,$*)
	$(CMAKE) --build build/$* --target bve-run
	mkdir -p $(@D)
	cp build/$*/bve-run $@

# dist/wheels/: one for each kind of machine, whichever its Python, with both kinds' bve-run and without a door for
# ExecuTorch, which is compiled against one of its releases.
wheels: $(WHEELS:%=%/x86_64) $(WHEELS:%=%/aarch64)
$(WHEELS)/%: build/programs/bve-run-x86_64 build/programs/bve-run-aarch64
	CXX="$(ZIG) c++ -target $*-linux-gnu.$(WHEEL_GLIBC)" LDFLAGS=-s PATH="$(CURDIR)/.venv/bin:$$PATH" \
		.venv/bin/python -m pip wheel -q --no-deps -w $(WHEELS) . -C install.strip=false \
		-C wheel.tags=py3-none-manylinux_$(subst .,_,$(WHEEL_GLIBC))_$* -C cmake.define.BVE_PROGRAMS=$(CURDIR)/build/programs \
		-C cmake.define.CMAKE_SYSTEM_NAME=Linux -C cmake.define.CMAKE_SYSTEM_PROCESSOR=$*
FORCE:

# The thread sanitizer is for what has threads. STORM_SECONDS=600: for how long eight sessions of eight threads start, run
# and stop at once.
sanitize: .venv/.ready
	mkdir -p build
	.venv/bin/python -m tests.runtime.doors.write_pte build/tiny.pte build/dispatch.pte
	.venv/bin/python -m tests.runtime.doors.write_tflite build/tiny.tflite
	$(call sanitize,address,address$(COMMA)undefined,)
	$(call sanitize,thread,thread,runtime)

fuzz: .venv/.ready
	CXX="$(CLANG)" $(CONFIGURE) -B build/fuzz -DBVE_FUZZ=ON -DBVE_SANITIZE=address,undefined
	$(CMAKE) --build build/fuzz --target $(FUZZERS:%=runtime_fuzz_%)
	.venv/bin/python -m tests.runtime.draw_seeds build/fuzz/pictures
	$(MAKE) --no-print-directory -j$(words $(FUZZERS)) --output-sync $(FUZZERS:%=fuzz-%)

# All at once: on two cores each has in 90 seconds what it had alone in 60.
fuzz-program: SEEDS = tests/runtime/corpus
fuzz-picture: SEEDS = build/fuzz/pictures
$(FUZZERS:%=fuzz-%): fuzz-%:
	mkdir -p build/fuzz/found/$*
	build/fuzz/tests/runtime/fuzz_$* -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/fuzz/$*- \
		build/fuzz/found/$* $(SEEDS)

venv: .venv/.ready

lint: .venv/.ready
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	find runtime kernels_arm tests -name '*.cc' -o -name '*.h' | xargs -r .venv/bin/clang-format --dry-run -Werror

# Every model x format x precision, an hour or two on two cores; goes on where it was stopped. CONFORMANCE=--retry
conformance: .venv/.ready
	.venv/bin/python -m tests.conformance $(CONFORMANCE)

bench: .venv/.ready
	.venv/bin/python tests/bench_models.py

# torch goes first and pinned: a looser request may choose another build and gigabytes of libraries with it. ExecuTorch
# goes before the package, which builds its door only with the headers there.
.venv/.ready: pyproject.toml
	@.ci/install-tools demo
	@echo 'setting up .venv: 3.3 GB, minutes'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet $(TORCH)
	.venv/bin/python -m pip install --quiet $(EXECUTORCH)
	.venv/bin/python -m pip install --quiet -e '.[all,dev]'
	touch $@
