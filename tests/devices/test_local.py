from pathlib import Path

import pytest

from bigvit_edge.devices import local

A55 = "Features\t: fp asimd asimdhp asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd05\n"
A76 = "Features\t: fp asimd asimdhp asimddp i8mm\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n"
X86 = "model name\t: Intel(R) Core(TM) i5-1240P\nflags\t\t: fpu avx2 fma avx_vnni sse4_2\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def cpuinfo(*cores: str) -> str:
    return "\n".join(f"processor\t: {number}\n{core}" for number, core in enumerate(cores))


def max_khz(*clocks: int) -> dict[str, str]:
    name = "sys/devices/system/cpu/cpu{}/cpufreq/cpuinfo_max_freq"
    return {name.format(number): f"{clock}\n" for number, clock in enumerate(clocks)}


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """An RK3588S board: four A55, then two pairs of A76 on clock domains of their own."""
    files = {
        "proc/cpuinfo": cpuinfo(*[A55] * 4, *[A76] * 4) + "\nHardware\t: Rockchip RK3588S\nSerial\t\t: 0\n",
        "proc/meminfo": "MemTotal:        8048000 kB\nMemFree:         100 kB\n",
        "proc/device-tree/model": "Orange Pi 5\0",
        "proc/sys/kernel/osrelease": "5.10.160-rockchip\n",
        "etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    }
    return write(tmp_path, files | max_khz(*[1800000] * 4, 2400000, 2400000, 2256000, 2256000))


def test_board(board: Path) -> None:
    assert local.probe(board) == local.Machine(
        cpu="Orange Pi 5",
        cores=8,
        clusters=(local.Cluster("Cortex-A55", 4), local.Cluster("Cortex-A76", 2), local.Cluster("Cortex-A76", 2)),
        isa=("asimd", "asimdhp", "asimddp"),  # the A55 have no i8mm
        memory_bytes=8048000 * 1024,
        os="Debian GNU/Linux 12 (bookworm) 5.10.160-rockchip",
    )


def test_x86(tmp_path: Path) -> None:
    files = {"proc/cpuinfo": cpuinfo(X86, X86, X86), "proc/sys/kernel/ostype": "Linux\n"}
    machine = local.probe(write(tmp_path, files | max_khz(4400000, 3300000, 3300000)))
    assert machine.cpu == "Intel(R) Core(TM) i5-1240P"
    assert machine.clusters == (("4400000 kHz", 1), ("3300000 kHz", 2))
    assert machine.isa == ("avx2", "fma", "avx_vnni")
    assert machine.os == "Linux"


def test_x86_without_clocks(tmp_path: Path) -> None:
    machine = local.probe(write(tmp_path, {"proc/cpuinfo": cpuinfo(X86, X86)}))
    assert (machine.cores, machine.clusters) == (2, ())


def test_unlisted_core(tmp_path: Path) -> None:
    cores = cpuinfo("CPU implementer\t: 0x51\nCPU part\t: 0x802\n", "CPU implementer\t: 0x41\nCPU part\t: 0xfff\n")
    machine = local.probe(write(tmp_path, {"proc/cpuinfo": cores}))
    assert machine.clusters == (("0x51:0x802", 1), ("0x41:0xfff", 1))


def test_describe(board: Path) -> None:
    assert local.describe(local.probe(board)) == (
        "Orange Pi 5; 8 cores (4 Cortex-A55 + 2 Cortex-A76 + 2 Cortex-A76); asimd asimdhp asimddp; 7.7 GiB; "
        "Debian GNU/Linux 12 (bookworm) 5.10.160-rockchip"
    )


def test_describe_says_what_is_not_told(tmp_path: Path) -> None:
    described = local.describe(local.probe(tmp_path))
    assert described == "CPU not told; cores not told; no known ISA flag; memory not told; OS not told"


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="no /proc on this system")
def test_here() -> None:
    machine = local.probe()
    assert machine.cores >= 1
    assert machine.memory_bytes > 2**28
