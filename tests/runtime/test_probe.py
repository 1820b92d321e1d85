"""What the probe tells of saved machines, held against their published specifications, and of this one."""

import json
import os
from pathlib import Path

import pytest

from bigvit_edge import machine, runtime
from bigvit_edge.errors import UserError
from bigvit_edge.machine import Machine, parse_machine, select_cores
from tests.native import CPUS, HOST, run_program, skip
from tests.saved_machines import NAMES, unpack_machine

Expected = list[tuple[str, str, tuple[int, ...]]]


def span(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


# Fastest first, as the makers publish them; a word is of the speed that the kernel gives, or the clock.
CLUSTERS: dict[str, Expected] = {
    "rk3588": [("big", "Cortex-A76", (4, 5)), ("big", "Cortex-A76", (6, 7)), ("little", "Cortex-A55", span(0, 3))],
    "rk3566": [("big", "Cortex-A55", span(0, 3))],
    "bcm2712": [("big", "Cortex-A76", span(0, 3))],
    "bcm2711": [("big", "Cortex-A72", span(0, 3))],
    "t527": [("big", "Cortex-A55", span(4, 7)), ("middle", "Cortex-A55", span(0, 3))],
    "tensor_g3": [
        ("big", "Cortex-X3", (8,)),
        ("middle", "Cortex-A715", span(4, 7)),
        ("little", "Cortex-A510", span(0, 3)),
    ],
    "snapdragon_888": [
        ("big", "Cortex-X1", (7,)),
        ("middle", "Cortex-A78", span(4, 6)),
        ("little", "Cortex-A55", span(0, 3)),
    ],
    "snapdragon_8_gen_3": [
        ("big", "Cortex-X4", (7,)),
        ("middle", "Cortex-A720", span(2, 4)),
        ("middle", "Cortex-A720", (5, 6)),
        ("little", "Cortex-A520", (0, 1)),
    ],
    "snapdragon_8_elite": [("big", "Oryon", (6, 7)), ("middle", "Oryon", span(0, 5))],
    "dimensity_9300": [
        ("big", "Cortex-X4", (7,)),
        ("middle", "Cortex-X4", span(4, 6)),
        ("little", "Cortex-A720", span(0, 3)),  # at 2.0 of 3.25 GHz
    ],
    "exynos_2400": [
        ("big", "Cortex-X4", (9,)),
        ("middle", "Cortex-A720", (7, 8)),
        ("middle", "Cortex-A720", span(4, 6)),
        ("little", "Cortex-A520", span(0, 3)),
    ],
    "jetson_orin": [("big", "Cortex-A78AE", span(0, 3)), ("big", "Cortex-A78AE", (4, 5))],
    "x86_laptop": [("big", "P-core", span(0, 7)), ("little", "E-core", span(8, 15))],
    "container_half_core": [("big", "", span(0, 7))],
    "cix_p1": [
        ("big", "Cortex-A720", (0,)),
        ("big", "Cortex-A720", span(9, 11)),
        ("big", "Cortex-A720", (5, 6)),
        ("middle", "Cortex-A720", (7, 8)),
        ("little", "Cortex-A520", span(1, 4)),
    ],
    "one_node": [("big", "Cortex-A76", span(0, 3)), ("little", "Cortex-A55", span(4, 6))],
}


def probe(root: Path, machine: str = HOST) -> Machine:
    run = run_program("bve-run", "probe", "--root", root, machine=machine)
    assert (run.returncode, run.stderr) == (0, "")
    return parse_machine(run.stdout)


def probe_saved(name: str, root: Path) -> Machine:
    return probe(unpack_machine(name, root))


@pytest.mark.parametrize("name", NAMES)
def test_clusters(name: str, tmp_path: Path) -> None:
    found = probe_saved(name, tmp_path)
    assert [(cluster.word, cluster.name, cluster.cores) for cluster in found.clusters] == CLUSTERS[name]
    assert sorted(select_cores(found, ["all"])) == [core.number for core in found.cores if core.online]
    assert found.unread == () or name in ("tensor_g3", "x86_laptop")


@pytest.mark.parametrize("machine", CPUS)
def test_an_emulated_cpu_reads_saved_text_alike(machine: str, tmp_path: Path) -> None:
    root = unpack_machine("snapdragon_8_gen_3", tmp_path)
    assert probe(root, machine) == probe(root)


@pytest.mark.parametrize("machine", CPUS)
def test_an_emulated_cpu_is_probed(machine: str) -> None:
    run = run_program("bve-run", "probe", machine=machine)
    assert (run.returncode, run.stderr) == (0, "")
    found = parse_machine(run.stdout)
    assert (found.cpu, found.architecture) == ("", "aarch64")
    names = {cluster.name.lower() for cluster in found.clusters}
    assert names == {machine} or names == {""}  # where qemu is older than 8.1, /proc/cpuinfo is the host's
    assert found.limits.allowed == tuple(sorted(os.sched_getaffinity(0)))


def test_names(tmp_path: Path) -> None:
    def name(saved: str) -> tuple[str, str, str]:
        found = probe_saved(saved, tmp_path / saved)
        return found.cpu, found.board, found.os

    assert name("bcm2712") == ("brcm,bcm2712", "Raspberry Pi 5 Model B Rev 1.1", "Debian GNU/Linux 12 (bookworm)")
    assert name("tensor_g3") == ("Google Tensor G3", "Google Pixel 8 Pro", "Android 14")
    assert name("snapdragon_888") == ("Qualcomm Technologies, Inc SM8350", "", "Linux")
    assert name("jetson_orin")[:2] == ("nvidia,tegra234", "AAEON BOXER-8654AI_RefKit` platform")
    assert name("x86_laptop")[:2] == ("13th Gen Intel(R) Core(TM) i7-1360P", "LENOVO 21HMCTO1WW")


def test_cores(tmp_path: Path) -> None:
    found = probe_saved("rk3588", tmp_path)
    assert found.cores[7] == machine.Core(
        number=7, online=True, midr="0x414fd0b0", name="Cortex-A76", capacity=1024, min_khz=408000, max_khz=2256000,
        current_khz=600000, governor="ondemand", domain=6,
    )  # fmt: skip
    assert (found.memory_bytes, found.available_bytes) == (8124520 * 1024, 7712000 * 1024)
    assert found.isa == ("asimd", "asimdhp", "asimddp")
    assert [(pmu.name, pmu.type, pmu.cores) for pmu in found.pmus] == [
        ("armv8_cortex_a55", 9, span(0, 3)),
        ("armv8_cortex_a76", 10, span(4, 7)),
    ]
    assert [(clock.name, clock.raw, clock.memory) for clock in found.clocks] == [
        ("dmc", "2400000000", True),
        ("fb000000.gpu", "300000000", False),
    ]


def test_an_offline_core_is_told_and_in_no_cluster(tmp_path: Path) -> None:
    found = probe_saved("one_node", tmp_path)
    assert [core.online for core in found.cores] == [True] * 7 + [False]
    assert found.cores[7].name == ""


def test_zones(tmp_path: Path) -> None:
    def read(name: str) -> dict[str, tuple[float | None, bool]]:
        zones = probe_saved(name, tmp_path / name).zones
        return {zone.type: (zone.temp_c, zone.cpu) for zone in zones}

    assert read("rk3588")["bigcore1-thermal"] == (31.461, True)
    assert read("rk3588")["soc-thermal"] == (31.461, False)
    assert read("rk3566") == {"soc-thermal": (47.777, True), "gpu-thermal": (46.666, False)}  # the CPU has no other
    assert read("dimensity_9300") == {"mtktscpu": (38.2, True), "mtktsbattery": (30, False), "mtktspmic": (0, False)}
    assert read("snapdragon_888")["modem1-thermal"] == (None, False)
    assert [zone for zone, (_, cpu) in read("tensor_g3").items() if cpu] == ["BIG", "MID", "LITTLE"]
    assert [zone for zone, (_, cpu) in read("x86_laptop").items() if cpu] == ["x86_pkg_temp", "coretemp Package id 0"]


def test_sensors_of_a_jetson(tmp_path: Path) -> None:
    sensors = probe_saved("jetson_orin", tmp_path).sensors
    assert [(sensor.label, sensor.total) for sensor in sensors] == [
        ("VDD_IN", True),
        ("VDD_CPU_GPU_CV", False),
        ("VDD_SOC", False),
    ]
    assert all(sensor.readable for sensor in sensors)
    assert [(reading.quantity, reading.unit, reading.path, reading.raw) for reading in sensors[0].readings] == [
        ("current", "mA", "/sys/class/hwmon/hwmon4/curr1_input", "1232"),
        ("voltage", "mV", "/sys/class/hwmon/hwmon4/in1_input", "4976"),
    ]


def test_sensors_of_a_pixel(tmp_path: Path) -> None:
    found = probe_saved("tensor_g3", tmp_path)
    odpm = [sensor for sensor in found.sensors if sensor.kind == "odpm"]
    assert {sensor.label: (sensor.readable, sensor.why) for sensor in odpm if sensor.chip == "s2mpg15-odpm"} == {
        "VSYS_PWR_WLAN_BT": (False, "Is a directory"),
        "VSYS_PWR_DISPLAY": (False, "Is a directory"),
    }
    assert [sensor.label for sensor in odpm if sensor.readable] == [
        "S10M_VDD_TPU", "VSYS_PWR_MODEM", "S2M_VDD_CPUCL2", "S3M_VDD_CPUCL1", "S4M_VDD_CPUCL0",
    ]  # fmt: skip
    assert found.unread == (machine.Unread("/sys/bus/iio/devices/iio:device1/energy_value", "Is a directory"),)
    (battery,) = (sensor for sensor in found.sensors if sensor.kind == "battery")
    assert [(reading.quantity, reading.raw) for reading in battery.readings] == [
        ("current", "-285000"),
        ("voltage", "4312000"),
        ("status", "Discharging"),
    ]
    assert (found.limits.group, found.limits.cpuset) == ("/foreground", span(0, 7))
    assert found.perf_event_paranoid == 3


def test_sensors_of_a_laptop(tmp_path: Path) -> None:
    sensors = probe_saved("x86_laptop", tmp_path).sensors
    assert [(sensor.kind, sensor.chip, sensor.label, sensor.total, sensor.readable) for sensor in sensors] == [
        ("powercap", "intel-rapl", "package-0", False, False),
        ("powercap", "intel-rapl", "psys", True, False),
        ("powercap", "intel-rapl", "core", False, False),
        ("battery", "BAT0", "", True, True),  # the mouse's is left out
    ]
    assert (sensors[0].why, sensors[0].wraps_at) == ("Is a directory", 262143328850)


def test_a_raspberry_pi(tmp_path: Path) -> None:
    root = unpack_machine("bcm2712", tmp_path)
    found = probe(root)
    assert found.throttled == machine.Throttled(
        "/sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled", 0x50000, "/usr/bin/vcgencmd", ""
    )
    assert [(sensor.kind, sensor.readable) for sensor in found.sensors] == [("pmic", True)]
    (root / "dev/vcio").unlink()
    assert probe(root).sensors[0].why == "No such file or directory"
    (root / "usr/bin/vcgencmd").unlink()
    assert probe(root).sensors[0].why == "no vcgencmd"
    older = probe_saved("bcm2711", tmp_path / "older")
    assert older.throttled == machine.Throttled("", None, "", "neither a file nor vcgencmd")
    assert older.sensors == ()


def test_a_container_of_half_a_core(tmp_path: Path) -> None:
    limits = probe_saved("container_half_core", tmp_path).limits
    assert (limits.cpuset, limits.quota_cores, limits.usable) == (span(0, 3), 0.5, 1)
    assert (limits.throttled_periods, limits.throttled_us) == (1234, 98765432)


def test_a_folder_without_anything_tells_nothing(tmp_path: Path) -> None:
    assert probe(tmp_path) == Machine("", "")


def test_text_that_is_no_utf8_is_told_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b'A "board" \xff\xc3(\xed\xa0\x80 \xe2\x82\xac\0')
    assert probe(tmp_path).board == 'A "board" ��(��� €'


@pytest.mark.parametrize("root", ["/nowhere", __file__])
def test_a_root_that_is_no_folder_is_refused(root: str) -> None:
    run = run_program("bve-run", "probe", "--root", root)
    assert (run.returncode, run.stdout) == (2, "")
    assert "expected a folder with proc and sys; check the path" in run.stderr


def test_here_by_the_library() -> None:
    here = runtime.probe()
    if here.unread and here.unread[0].path == runtime.LIBRARY:
        skip("the library in use is older than the probe", "make native")
    allowed = tuple(sorted(os.sched_getaffinity(0)))
    assert here.limits.allowed == allowed
    assert 1 <= (here.limits.usable or 0) <= len(allowed)
    assert here.memory_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert here.architecture == os.uname().machine


def test_the_library_tells_what_the_program_does(tmp_path: Path) -> None:
    root = unpack_machine("exynos_2400", tmp_path)
    try:
        assert runtime.probe(root) == probe(root)
    except UserError as e:
        skip(str(e), "make native")


def test_without_the_library_python_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def lack() -> None:
        raise UserError("no libbve.so", "one")

    monkeypatch.setattr(runtime, "load_library", lack)
    assert runtime.probe().unread[0].why == "no libbve.so; expected one"
    with pytest.raises(UserError, match="can probe"):
        runtime.probe(tmp_path)


def test_every_field_is_told(tmp_path: Path) -> None:
    run = run_program("bve-run", "probe", "--root", unpack_machine("rk3588", tmp_path))
    assert set(json.loads(run.stdout)) == set(Machine.__dataclass_fields__)
