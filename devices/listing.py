"""Which devices answer: this machine, what adb knows, and those named; and what each is."""

import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bigvit_edge import runtime
from bigvit_edge.devices import open_device
from bigvit_edge.devices.adb import explain_state, list_states
from bigvit_edge.devices.binaries import install_bve_run
from bigvit_edge.devices.contract import Device, DeviceError
from bigvit_edge.devices.process import run_words
from bigvit_edge.devices.store import Store
from bigvit_edge.errors import UserError
from bigvit_edge.machine import Machine, Zone, name_cluster, parse_machine

READY = "ready"
ADB_S = 1.5  # for a list, which does not wait for adb's server longer than that
LOOK_S = 60
TITLE = ("device", "state", "machine", "clusters", "GHz now", "°C", "memory free", "runs")
# A module of Python, and which files run by it; 'bve' runs by bve-run, everywhere.
PACKAGES = {"ai_edge_litert": "tflite", "tflite_runtime": "tflite", "onnxruntime": "onnx", "executorch": "pte"}
FIND = "import sys; from importlib.util import find_spec; print(*(n for n in sys.argv[1:] if find_spec(n)))"


@dataclass(frozen=True)
class Found:
    """A device, and what it told.

    state: READY, or why it cannot be used; do: what to do then, or to be told more. machine: None if it told nothing.
    runs: which formats' files run there.
    """

    name: str
    state: str
    do: str = ""
    machine: Machine | None = None
    runs: tuple[str, ...] = ()


def list_devices(names: Sequence[str] = ()) -> list[Found]:
    """List this machine, those that adb knows, and those named.

    All are looked at at once. Those that do not answer are listed too, with the reason.
    """
    found: dict[str, Found] = {}
    try:
        for serial, state in list_states(ADB_S).items():
            do = "" if state == "device" else explain_state(state)
            found[f"adb:{serial}"] = Found(f"adb:{serial}", state, do)
    except DeviceError as e:
        found["adb"] = Found("adb", e.met, _advise(e))
    ready = [name for name, row in found.items() if row.state == "device"]
    with ThreadPoolExecutor() as pool:
        looked = pool.map(look_at, dict.fromkeys(("local", *ready, *names)))
        rows = {row.name: row for row in looked}
    return [*rows.values(), *(row for name, row in found.items() if name not in rows)]


def look_at(name: str) -> Found:
    """Open a device, ask what it is, and close it again."""
    try:
        device = open_device(name)
    except UserError as e:
        return Found(name, e.met, _advise(e))
    try:
        runs = ("bve", *_find_formats(device))
        try:
            machine = _probe(device)
            unread = (
                "; ".join(f"{each.path}: {each.why}" for each in machine.unread)
                if machine and not machine.cores
                else ""
            )
            return Found(name, READY, unread, machine, runs)
        except DeviceError as e:
            return Found(name, READY, str(e), None, runs[1:])
        except UserError as e:
            return Found(name, READY, f"its facts need bve-run there: {e.met}; {e.do}", None, runs)
    except DeviceError as e:
        return Found(name, e.met, _advise(e))
    finally:
        device.close()


def tabulate(found: Iterable[Found]) -> list[tuple[str, ...]]:
    """Make a row of TITLE's cells of each device."""
    return [(row.name, row.state if row.state == READY else "-", *_describe(row)) for row in found]


def explain(found: Iterable[Found]) -> list[str]:
    """Say of each device that is not ready what to do."""
    told = ((row.name, "; ".join(words for words in (row.state, row.do) if words and words != READY)) for row in found)
    return [words if words.startswith(name) else f"{name}: {words}" for name, words in told if words]


def _advise(e: UserError) -> str:
    return f"expected {e.expected}" + (f"; {e.do}" if e.do else "")


def _probe(device: Device) -> Machine | None:
    if device.launch == "none":
        return None
    if device.in_place:
        return runtime.probe()
    with Store(device) as store:
        done = run_words(device, (install_bve_run(device, store, build=False), "probe"), LOOK_S)
    if done.status:
        raise DeviceError(f"its bve-run tells nothing ({done.err.strip()})", "one of this version", "build it anew")
    return parse_machine(done.out)


def _find_formats(device: Device) -> tuple[str, ...]:
    """Those for which the device's Python has a runtime."""
    if device.launch == "none":
        return ()
    python = sys.executable if device.in_place else "python3"
    done = run_words(device, (python, "-c", FIND, *PACKAGES), LOOK_S)
    return tuple(dict.fromkeys(PACKAGES[name] for name in done.out.split())) if done.status == 0 else ()


def _describe(row: Found) -> tuple[str, ...]:
    runs = ", ".join(row.runs)
    if not (machine := row.machine):
        return ("-", "-", "-", "-", "-", runs)
    clusters = " + ".join(f"{len(cluster.cores)} {name_cluster(cluster)}" for cluster in machine.clusters)
    clocks = [
        max((core.current_khz or 0 for core in machine.cores if core.number in cluster.cores), default=0)
        for cluster in machine.clusters
    ]
    return (
        machine.board or machine.cpu or "-",
        clusters or "-",
        " + ".join(f"{khz / 1e6:.2f}" for khz in clocks) if any(clocks) else "-",
        _find_warmest(machine.zones),
        _describe_memory(machine),
        runs,
    )


def _find_warmest(zones: Iterable[Zone]) -> str:
    """Of the CPU's thermometers."""
    temperatures = [zone.temp_c for zone in zones if zone.cpu and zone.temp_c is not None]
    return f"{max(temperatures):.0f}" if temperatures else "-"


def _describe_memory(machine: Machine) -> str:
    free, total = machine.available_bytes, machine.memory_bytes
    return f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB" if free is not None and total else "-"
