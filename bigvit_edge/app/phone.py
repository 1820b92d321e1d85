"""A bench by the app: installed on a phone behind adb, started by an intent, its result brought here."""

import json
import shlex
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bigvit_edge.app.apk import FORMAT, PACKAGE, build_bare_apk
from bigvit_edge.bench.cases import list_cases
from bigvit_edge.bench.command import HELD_OUT, choose_path
from bigvit_edge.bench.measurement import SILENT, Plan, Progress
from bigvit_edge.devices import open_device
from bigvit_edge.devices.binaries import install_bve_run
from bigvit_edge.devices.contract import Device, DeviceError
from bigvit_edge.devices.occupancy import lock
from bigvit_edge.devices.process import run_words
from bigvit_edge.devices.store import Store
from bigvit_edge.errors import UserError, list_few
from bigvit_edge.interruption import shielded
from bigvit_edge.results import Result, check_writable, read_result

ACTIVITY = f"{PACKAGE}/bigvit.edge.MainActivity"
SHOWN = f"/sdcard/Android/data/{PACKAGE}/files"  # the app's folder that adb's shell may read and empty
SDK, ABI = 23, "arm64-v8a"
INSTALL_S, POLL_S, GONE_POLLS = 180.0, 1.0, 5
LONGEST_S = 3600.0  # besides the minutes that were asked for
AWAKE = "input keyevent KEYCODE_WAKEUP; wm dismiss-keyguard"
LOOK = 'cat "$1" 2>/dev/null || { pidof "$2" >/dev/null && echo running; }; :'
OPEN = 'chmod 755 "$1" "${2%/*}" && chmod 644 "$2"'
MOST_TOLD = 300  # letters of what a phone says


def bench_by_app(
    files: Sequence[Path], name: str, plan: Plan, output: Path | None = None, resume: bool = False,
    keep: float | None = None, progress: Progress = SILENT,
) -> tuple[Result, Path, tuple[str, ...]]:  # fmt: skip
    """Measure files by the app on a phone.

    The app is installed where it is not there, and goes again; one that is there stays. name: adb:SERIAL; output: a
    file that is not there yet, else a new one as run_bench chooses. Returns the result, where it lies, and
    notes: what was left out. UserError and DeviceError on what cannot work; nothing is written then, and nothing of
    ours left there.
    """
    _refuse(name, plan, resume)
    cases = list_cases(list(files), keep)
    ours = list(dict.fromkeys(case.path for case in cases if case.format == FORMAT))
    others = dict.fromkeys(case.name for case in cases if case.format != FORMAT)
    if not ours:
        raise UserError(f"no .bve file ({list_few(others)})", "one, which is what the app runs", "leave --app out")
    path = choose_path(cases, name, output)
    check_writable(path)
    device = open_device(name)
    try:
        _check_phone(device)
        with Store(device) as store, ExitStack() as stack:
            stack.enter_context(lock(device, install_bve_run(device, store, progress.step)))
            stack.push(store)  # its files go while the phone is still held
            with progress.step("app to the phone"):
                token = stack.enter_context(_installing(device, store, progress))
            with progress.step("models to the phone"):
                there = [_place(device, store, file) for file in ours]
            asked = {"token": token, "models": there, "plan": spell_plan(plan, token, keep)}
            with progress.step(f"the app on {name} measures"):
                text = _run(device, asked, plan.protocol.minutes * 60 + LONGEST_S)
        result = _keep(text, path)
    finally:
        device.close()
    notes = (f"left out, as the app runs .bve files alone: {list_few(others)}",) if others else ()
    return result, path, notes


def _refuse(name: str, plan: Plan, resume: bool) -> None:
    """Refuse what the app does not do."""
    if not name.startswith("adb:"):
        raise UserError(f"--app and --device {name}", "a phone, adb:SERIAL", "bigvit-edge devices lists them")
    for word, given in (
        ("--resume", resume), ("--cool", plan.protocol.cool_c is not None), ("--images", plan.pictures != HELD_OUT),
        ("--keep-files", plan.keep_files),
    ):  # fmt: skip
        if given:
            raise UserError(f"--app and {word}", "one of them: the app has no such thing", "leave one out")


def _check_phone(device: Device) -> None:
    told = _ask(device, "command -v pm; getprop ro.build.version.sdk; getprop ro.product.cpu.abilist").splitlines()
    expected = f"a phone with Android 6 or newer, 64-bit ARM ({ABI})"
    if len(told) < 3 or not told[1].isdigit():
        raise DeviceError(f"{device.name}, which is no phone with Android: it has no pm", expected, "leave --app out")
    if int(told[1]) < SDK or ABI not in told[2].split(","):
        raise DeviceError(f"{device.name}, which has API {told[1]} and runs {told[2]}", expected, "take another phone")


@contextmanager
def _installing(device: Device, store: Store, progress: Progress) -> Iterator[str]:
    """Have the app there; give a task's token. At the end the app stops, and goes where it came for this."""
    token = uuid.uuid4().hex[:16]
    was_there = "package:" in _ask(device, f"pm path {PACKAGE}")
    try:
        if not was_there:
            _install(device, store, progress)
        yield token
    finally:
        with shielded():
            _ask(device, f"am force-stop {PACKAGE}")
            if was_there:
                _ask(device, f"rm -f {SHOWN}/tasks/{token}.json {SHOWN}/results/{_name_result(token)}")
            else:
                _ask(device, f"pm uninstall {PACKAGE}", INSTALL_S)


def _install(device: Device, store: Store, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(prefix="bigvit-edge-") as folder:
        apk = Path(folder) / "bench.apk"
        build_bare_apk(apk, progress.step)
        there = store.place(apk)
    said = _ask(device, f"pm install {shlex.quote(there)} 2>&1", INSTALL_S)
    if "Success" not in said:
        met = f"{device.name} installs no app ({_cut(said)})"
        raise DeviceError(met, "one that does", "allow it on its screen (USB installs), and try again")


def _place(device: Device, store: Store, file: Path) -> str:
    """Bring a model, where an app may read it."""
    there = store.place(file)
    done = run_words(device, ("sh", "-c", OPEN, "sh", device.home, there))
    if done.status:
        raise DeviceError(f"{there} cannot be opened to apps ({_cut(done.err)})", "that folder's own rights", "")
    return there


def spell_plan(plan: Plan, token: str, keep: float | None) -> dict[str, Any]:
    """Spell what the page is asked for, in its words."""
    long = {"minutes": plan.protocol.minutes} if plan.protocol.minutes else {"rounds": plan.protocol.rounds}
    asked = {"fps": plan.protocol.fps, "threads": plan.threads, "clusters": list(plan.clusters), "keep": keep}
    return {"name": _name_result(token), **long, **asked, "energy": plan.energy, "command": list(plan.command)}


def _name_result(token: str) -> str:
    return f"bench-{token}.json"


def _run(device: Device, asked: dict[str, Any], limit_s: float) -> str:
    """Start the app with a task, wait for its end, and return the result's text."""
    _ask(device, AWAKE)
    words = ("am", "start", "-W", "-n", ACTIVITY, "--es", "task", json.dumps(asked))
    done = run_words(device, words, INSTALL_S)
    if done.status or "Error" in done.out + done.err:
        met = f"{device.name} does not start the app ({_cut(done.out + done.err)})"
        raise DeviceError(met, "its window", "see what it says")
    end = _wait(device, asked["token"], limit_s)
    if end.get("error") or not end.get("result"):
        raise DeviceError(
            f"the app on {device.name}: {end.get('error') or 'no result'}", "a result", "see what it says"
        )
    done = run_words(device, ("cat", f"{SHOWN}/results/{end['result']}"), INSTALL_S)
    if done.status:
        raise DeviceError(f"{end['result']} of the app cannot be read ({_cut(done.err)})", "its result", "try again")
    return done.out


def _wait(device: Device, token: str, limit_s: float) -> dict[str, Any]:
    path, last, gone = f"{SHOWN}/tasks/{token}.json", time.monotonic() + limit_s, 0
    while time.monotonic() < last:
        told = run_words(device, ("sh", "-c", LOOK, "sh", path, PACKAGE)).out.strip()
        if told.startswith("{"):
            end: dict[str, Any] = json.loads(told)
            return end
        gone = 0 if told == "running" else gone + 1
        if gone > GONE_POLLS:
            met = f"the app on {device.name} has ended without a word"
            raise DeviceError(met, "it measuring", "adb logcat has why; keep the phone unlocked, and try again")
        time.sleep(POLL_S)
    raise DeviceError(f"the app on {device.name} measures for more than {limit_s / 60:.0f} minutes", "an end", "")


def _keep(text: str, path: Path) -> Result:
    """Write what the app measured as it is, once it proves to be a result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        part.write_text(text)
        try:
            result = read_result(part)
        except UserError as e:
            raise DeviceError(
                f"what the app says is no result ({e.met})", "the app of this version", "install it"
            ) from e
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return result


def _ask(device: Device, script: str, timeout_s: float = 30) -> str:
    done = run_words(device, ("sh", "-c", script), timeout_s)
    return (done.out + done.err).strip()


def _cut(said: str) -> str:
    return " ".join(said.split())[:MOST_TOLD]
