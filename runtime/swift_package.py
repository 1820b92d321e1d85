"""Our core as a Swift package: its sources as SwiftPM compiles them, and a Swift API over them."""

import shutil
from functools import partial
from pathlib import Path

from bigvit_edge.folders import OPTION, staging
from bigvit_edge.runtime.libraries import check_output, find_sources

# Of an instruction set's files: where they are compiled, with what header before all others, and for what features.
# What CMake says by flags, a file says here by itself; its functions are called on a CPU that has the features.
INTRINSICS = {"aarch64": "arm_neon.h", "x86_64": "immintrin.h"}
FEATURES = {
    "neon": ("aarch64", ""),
    "neonfp16": ("aarch64", "fp16"),
    "neondot": ("aarch64", "fp16,dotprod"),
    "neoni8mm": ("aarch64", "fp16,dotprod,i8mm"),
    "avx2": ("x86_64", "avx2,fma,f16c"),
    "avx512vnni": ("x86_64", "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"),
}
CORE = ("runtime", "kernels_arm")
HEADER = "bve.h"


def write_swift_package(folder: Path, option: str = OPTION) -> Path:
    """Write the Swift package of the core, its API and tests.

    Into `folder`, new or empty, whole or not at all; option: by which it was named, for messages:

        Package.swift
        Sources/CBve/               the core's sources; include/bve.h and its module map
        Sources/BigvitEdge/         Model, Session, Picture
        Tests/BigvitEdgeTests/

    Returns its absolute path. UserError where the folder cannot be made.
    """
    folder, sources = check_output(folder, option), find_sources()
    with staging(folder, partial(check_output, folder, option), option) as part:
        shutil.copytree(sources / "runtime/swift", part, dirs_exist_ok=True)
        shutil.copy(sources / "LICENSE", part)
        for name in CORE:
            _copy_core(sources / name, part / "Sources/CBve" / name)
        include = part / "Sources/CBve/include"
        (part / "Sources/CBve/runtime" / HEADER).rename(include / HEADER)
    return folder


def _copy_core(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for file in sorted(source.glob("*")):
        if file.suffix in (".h", ".inc"):
            shutil.copy(file, target)
        elif file.suffix == ".cc":
            kernel = target.name == "kernels_arm"
            text = file.read_text()
            (target / file.name).write_text(_wrap(file.stem, text) if kernel else text)


def _wrap(name: str, text: str) -> str:
    """Put around a kernel's source what its file is else compiled with; name: 'gemm_neondot'."""
    isa = next((word for word in name.split("_") if word in FEATURES), None)
    text = f"#pragma clang fp contract(fast)\n\n{text}"
    if isa is None:
        return text
    processor, features = FEATURES[isa]
    if features:
        attribute = f'__attribute__((target("{features}")))'
        text = (
            f"#pragma clang attribute push({attribute}, apply_to = function)\n\n{text}\n#pragma clang attribute pop\n"
        )
    # The intrinsics' header comes before the features: each of its functions names its own.
    return f"#if defined(__{processor}__)\n#include <{INTRINSICS[processor]}>\n\n{text}\n#endif\n"
