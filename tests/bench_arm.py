"""ARM without ARM hardware: `python tests/bench_arm.py`, in markdown. Modelled cycles, and counted instructions.

Without arguments: for each matrix product of kernels.inc that runs on ARM, the loop over k that clang makes of it, and
what llvm-mca says of that loop on each core; then the same of the kernels of frames, by the levels that a turn of their
longest loop makes. These cycles are a model's: no cache, no memory, no branch is missed.

With a program for 64-bit ARM and its arguments (`python tests/bench_arm.py build/aarch64/bve-run bench MODEL`): the
instructions that it executes, by class, counted by qemu. Run it on one thread; two counts of different length tell what
a single turn takes.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
KERNELS = ROOT / "kernels_arm"
ATTRIBUTES = "+fullfp16,+dotprod,+i8mm"  # what llvm-mca may read; whether a core has it is said below

# Multiply-accumulates in one instruction, by the kind of instruction.
PRODUCTS = {"fmla.4s": 4, "fmla.8h": 8, "smull": 8, "sdot": 16, "smmla": 32}
KINDS = {
    "fmla.4s": re.compile(r"fmla\s+v\d+\.4s"),
    "fmla.8h": re.compile(r"fmla\s+v\d+\.8h"),
    "smull": re.compile(r"sm(?:ul|la)l2?\s+v\d+\.8h"),
    "sdot": re.compile(r"sdot\s"),
    "smmla": re.compile(r"smmla\s"),
}


@dataclass(frozen=True)
class Core:
    """A core as llvm-mca knows it, and how many instructions of a kind it begins in a cycle; one it lacks is absent."""

    name: str
    stands_for: str
    variant: str  # the bve_core whose kernels it runs
    rate: dict[str, float]


# The rates are those of LLVM 19's scheduling models (llvm/lib/Target/AArch64/AArch64Sched*.td, which cite Arm's
# software optimisation guides), read as 1 / RThroughput of `llvm-mca -instruction-info`; of smull, smlal may be slower.
CORES = (
    # A55: the model begins two 128-bit fmla a cycle; the silicon has two pipes of 64 bits, so its peak is half of that.
    Core("cortex-a55", "A55", "bve_a55", {"fmla.4s": 2, "fmla.8h": 2, "smull": 1, "sdot": 1}),
    Core("cortex-a510", "A510", "bve_a510", {"fmla.4s": 2, "fmla.8h": 2, "smull": 2, "sdot": 2, "smmla": 2}),
    Core("neoverse-n1", "A76", "", {"fmla.4s": 2, "fmla.8h": 2, "smull": 1, "sdot": 2}),
    Core("neoverse-n2", "A710", "", {"fmla.4s": 2, "fmla.8h": 2, "smull": 2, "sdot": 2, "smmla": 2}),
    Core("neoverse-v2", "X3", "", {"fmla.4s": 4, "fmla.8h": 4, "smull": 2, "sdot": 4, "smmla": 4}),
)


# Levels of one turn of a loop: columns x rows x channels, which are made, or summed up.
LEVELS = {
    "bve_yuv_u8_u8_u16_neon": 16 * 2 * 3,
    "bve_rgb_u8_u8_u16_neon": 16 * 2 * 3,
    "bve_down_i16_u8_u16_neon": 16 * 2,
    "bve_down_i16_u8_u32_neondot": 32 * 4,
}


@dataclass(frozen=True)
class Kernel:
    name: str
    isa: str
    core: str
    args: str = "bve_gemm"  # the struct of its arguments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clang", default="clang++-19")
    parser.add_argument("--mca", default="llvm-mca-19")
    parser.add_argument("--qemu", default="qemu-aarch64", help="one that takes -plugin, 4.2 to 8.2")
    parser.add_argument("--cpu", default="max", help="of qemu")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="count what this executes, instead")
    options = parser.parse_args()
    try:
        if options.program:
            count_instructions(options.qemu, options.cpu, options.program)
        else:
            model_kernels(options.clang, options.mca)
    except Missing as error:
        sys.exit(f"bench_arm: {error}")


class Missing(Exception):
    """What was met, and what to do."""


# ---- modelled cycles ------------------------------------------------------------------------------------------------


def model_kernels(clang: str, mca: str) -> None:
    for tool in (clang, mca):
        if not shutil.which(tool):
            raise Missing(
                f"{tool} is not here; do: apt-get install clang-19 llvm-19, or name another by --clang, --mca"
            )
    rows = []
    for kernel in list_kernels():
        loop = slice_loop(compile_kernel(clang, kernel), kernel, lambda loop: count_products(loop)[1])
        kind, count = count_products(loop)
        macs = count * PRODUCTS[kind]
        for core in CORES:
            if kind not in core.rate or (kernel.core != "bve_any_core" and kernel.core != core.variant):
                continue
            cycles = measure_cycles(mca, core, loop)
            peak = core.rate[kind] * PRODUCTS[kind]
            figures = (f"{cycles:.1f}", f"{macs / cycles:.1f}", f"{peak:.0f}", f"{macs / cycles / peak:.1%}")
            rows.append((f"`{kernel.name}`", f"{core.name} ({core.stands_for})", kind, str(len(loop)), *figures))
    print_markdown(
        ("kernel", "core", "by", "instructions", "cycles", "MAC/cycle", "peak", "share of peak"),
        rows,
    )
    print()
    model_frames(clang, mca)
    version = run([clang, "--version"]).splitlines()[0]
    print(f"\nModelled, not measured: one turn of each loop by llvm-mca, compiled by {version}.")


def model_frames(clang: str, mca: str) -> None:
    rows = []
    text = (KERNELS / "kernels.inc").read_text()
    for args, name, isa in re.findall(r"^BVE_(YUV|RGB|DOWN)\((\w+),\s*bve_(neon\w*)\)", text, re.MULTILINE):
        kernel = Kernel(name, isa, "bve_any_core", f"bve_{args.lower()}")
        loop = slice_loop(compile_kernel(clang, kernel), kernel, len)
        for core in CORES:
            cycles = measure_cycles(mca, core, loop)
            figures = (str(len(loop)), f"{cycles:.1f}", f"{LEVELS[name] / cycles:.1f}")
            rows.append((f"`{name}`", f"{core.name} ({core.stands_for})", *figures))
    print_markdown(("kernel", "core", "instructions", "cycles", "levels/cycle"), rows)


def list_kernels() -> list[Kernel]:
    """The matrix products of kernels.inc that are for ARM."""
    row = re.compile(r"^BVE_GEMM\((\w+),\s*bve_(neon\w*),\s*(\w+),", re.MULTILINE)
    return [Kernel(*match) for match in row.findall((KERNELS / "kernels.inc").read_text())]


def compile_kernel(clang: str, kernel: Kernel) -> str:
    """Assembly of the file that holds the kernel, with the flags that CMakeLists.txt gives to its instruction set."""
    definition = re.compile(rf"^void {kernel.name}\(", re.MULTILINE)
    (file,) = (file for file in KERNELS.glob("*.cc") if definition.search(file.read_text()))
    cmake = (ROOT / "CMakeLists.txt").read_text()
    flags = re.findall(rf"set\({kernel.isa}_FLAGS (-march=[^)]*)\)", cmake)
    if not flags and kernel.isa != "neon":
        raise Missing(f"CMakeLists.txt sets no {kernel.isa}_FLAGS with -march; {file.name} needs them")
    common = ["--target=aarch64-linux-gnu", "-std=c++17", "-O3", "-ffp-contract=fast", "-fno-exceptions", "-fno-rtti"]
    return run([clang, *common, *(flags[0].split() if flags else ()), "-S", "-o", "-", str(file)])


def slice_loop(assembly: str, kernel: Kernel, weigh: Callable[[list[str]], int]) -> list[str]:
    """Of the kernel's innermost loops, the one that weighs most: the full tile's. Its branch goes to `loop`.

    Markers for llvm-mca would change the code, so the loop is found by its label and the branch back to it.
    """
    symbol = f"_Z{len(kernel.name)}{kernel.name}PK{len(kernel.args)}{kernel.args}"
    found = re.search(rf"^{symbol}:[^\n]*\n(.*?)^\.Lfunc_end", assembly, re.MULTILINE | re.DOTALL)
    lines = found[1].splitlines() if found else []
    labels: dict[str, int] = {}
    best: list[str] = []
    for i, line in enumerate(lines):
        if label := re.match(r"(\.L\w+):", line):
            labels[label[1]] = i
        branch = re.match(r"\s+(?:b\.\w+|b|cbn?z|tbn?z)\s.*?(\.L\w+)$", line)
        if not branch or branch[1] not in labels:
            continue
        body = lines[labels[branch[1]] + 1 : i + 1]
        if any(re.match(r"\.LBB\w+:", inner) for inner in body):
            continue  # another loop within, or a choice
        loop = [inner.split("//")[0].strip() for inner in body if re.match(r"\s+[a-z]", inner)]
        if weigh(loop) > weigh(best):
            best = [*loop[:-1], loop[-1].replace(branch[1], "loop")]
    if not best:
        raise Missing(f"{kernel.name}: no such loop stands in the code that clang made of it")
    return best


def count_products(loop: list[str]) -> tuple[str, int]:
    """The kind of multiplication that a loop does most, and how often."""
    counts = {kind: sum(bool(pattern.match(line)) for line in loop) for kind, pattern in KINDS.items()}
    kind = max(counts, key=lambda kind: counts[kind])
    return kind, counts[kind]


def measure_cycles(mca: str, core: Core, loop: list[str]) -> float:
    """Of one turn, once it runs steadily."""
    command = [mca, "-mtriple=aarch64", f"-mcpu={core.name}", f"-mattr={ATTRIBUTES}"]
    totals = []
    for turns in (100, 300):
        text = run([*command, f"-iterations={turns}"], "loop:\n" + "\n".join(loop) + "\n")
        (total,) = re.findall(r"^Total Cycles:\s+(\d+)", text, re.MULTILINE)
        totals.append(int(total))
    return (totals[1] - totals[0]) / 200


# ---- executed instructions ------------------------------------------------------------------------------------------


def count_instructions(qemu: str, cpu: str, program: list[str]) -> None:
    compiler = shutil.which("cc")
    if not shutil.which(qemu) or "-plugin" not in run([qemu, "--help"]):
        raise Missing(
            f"{qemu} is not here, or takes no plugins; do: apt-get download qemu-user (7.2, of Debian bookworm itself, "
            "not the backport or the static one), dpkg -x it, and name its qemu-aarch64 by --qemu"
        )
    if not compiler:
        raise Missing("cc is not here; do: apt-get install gcc")
    with tempfile.TemporaryDirectory() as folder:
        plugin, counts = Path(folder) / "count.so", Path(folder) / "counts.txt"
        run([compiler, "-shared", "-fPIC", "-O2", "-o", str(plugin), str(ROOT / "tests" / "count_instructions.c")])
        command = [qemu, "-cpu", cpu, "-plugin", f"{plugin},out={counts}", *program]
        code = subprocess.run(command, check=False).returncode
        if code:
            raise Missing(f"{' '.join(program)} ended with {code}; it must end with 0 to be counted")
        classes = [line.split() for line in counts.read_text().splitlines()]
    total = sum(int(count) for _, count in classes)
    rows = [(name, f"{int(count):,}", f"{int(count) / total:.1%}") for name, count in classes]
    print_markdown(("class", "executed", "share"), [*rows, ("all", f"{total:,}", "")])
    print(
        f"\nCounted by qemu, -cpu {cpu}: `{' '.join([Path(program[0]).name, *program[1:]])}`, start and end included."
    )


def run(command: list[str], text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def print_markdown(title: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    columns = list(title)
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
