"""A bench by the app: installed on a phone behind adb, started by an intent, its result brought here."""

import json
import shlex
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigvit_edge.app.apk import FORMAT, PACKAGE, build_bare_apk
from bigvit_edge.bench.cases import Case, list_cases
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
CLOSE = 'chmod 700 "$1"; shift; for each; do [ ! -f "$each" ] || chmod 600 "$each"; done'  # as Store has them
MOST_TOLD = 300  # letters of what a phone says


def bench_by_app(
    files: Sequence[Path], name: str, plan: Plan, output: Path | None = None, resume: bool = False,
    keep: float | None = None, progress: Progress = SILENT,
) -> tuple[Result, Path, tuple[str, ...]]:  # fmt: skip
    """Measure files by the app on a phone.

    The app is installed where it is not there, and goes again; one that is there stays. name: adb:SERIAL; output: a
    file that is not there yet, else a new one as run_bench chooses. Returns the result, where it lies, and
    notes: what was left out. UserError and DeviceError on what cannot work; nothing of ours is left there then. Of a
    bench that ended before its time, cancelled there or failed, the part is written, and DeviceError names it.
    """
    _refuse(name, plan, resume)
    cases = list_cases(list(files), keep)
    ours = [case for case in cases if case.format == FORMAT]
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
                task = stack.enter_context(_installing(device, store, progress))
            with progress.step("models to the phone"):
                there = stack.enter_context(_placing(device, store, [case.path for case in ours]))
            with progress.step(f"the app on {name} measures"):
                asked = spell_task(task.token, ours, there, plan)
                text, fault = _run(device, task, asked, plan.protocol.minutes * 60 + LONGEST_S)
        result = _keep(text, path)
    finally:
        device.close()
    if fault or not result.complete:
        met, expected = (fault.met, fault.expected) if fault else (f"a bench that was cancelled on {name}", "its end")
        raise DeviceError(met, expected, f"{path} has what was measured until then") from fault
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


@dataclass
class _Task:
    """What the app is asked for. handed: whether it may have it by now."""

    token: str
    handed: bool = False

    @property
    def end(self) -> str:
        """Name the file that says there how it ended."""
        return f"{SHOWN}/tasks/{self.token}.json"


@contextmanager
def _installing(device: Device, store: Store, progress: Progress) -> Iterator[_Task]:
    """Have the app there for a task.

    At the end it goes where it came for this. Where it was there it is stopped, but not if it never took the task: a
    person may measure there.
    """
    task = _Task(uuid.uuid4().hex[:16])
    was_there = "package:" in _ask(device, f"pm path {PACKAGE}")
    try:
        if not was_there:
            _install(device, store, progress)
        yield task
    finally:
        with shielded():
            if not was_there or (task.handed and not _look(device, task)[1].get("refused")):
                _ask(device, f"am force-stop {PACKAGE}")
            if was_there:
                _ask(device, f"rm -f {task.end} {SHOWN}/results/{_name_result(task.token)}")
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


@contextmanager
def _placing(device: Device, store: Store, files: Sequence[Path]) -> Iterator[dict[Path, str]]:
    """Bring models, where an app may read them until the end; where each lies."""
    there: dict[Path, str] = {}
    try:
        for file in dict.fromkeys(files):
            there[file] = store.place(file)
            done = run_words(device, ("sh", "-c", OPEN, "sh", device.home, there[file]))
            if done.status:
                met = f"{there[file]} cannot be opened to apps ({_cut(done.err)})"
                raise DeviceError(met, "that folder's own rights", "")
        yield there
    finally:
        with shielded():
            run_words(device, ("sh", "-c", CLOSE, "sh", device.home, *there.values()))


def spell_task(token: str, cases: Sequence[Case], there: dict[Path, str], plan: Plan) -> dict[str, Any]:
    """Spell what the app is asked for.

    Its page's plan, and models with the names and facts that bench has of them. there: where each file lies.
    """
    models = []
    for path, place in there.items():
        ours = [case for case in cases if case.path == path]
        precision = ours[0].entry.precision if ours[0].entry else ""
        methods = [
            {"name": case.method and case.method.name, "keep": case.keep, "delegated_share": case.delegated_share}
            for case in ours
        ]
        models.append({"path": place, "name": ours[0].name, "precision": precision, "methods": methods})
    long = {"minutes": plan.protocol.minutes} if plan.protocol.minutes else {"rounds": plan.protocol.rounds}
    how = {"fps": plan.protocol.fps, "threads": plan.threads, "clusters": list(plan.clusters), "energy": plan.energy}
    page = {"name": _name_result(token), **long, **how, "command": list(plan.command)}
    return {"token": token, "models": models, "plan": page}


def _name_result(token: str) -> str:
    return f"bench-{token}.json"


def _run(device: Device, task: _Task, asked: dict[str, Any], limit_s: float) -> tuple[str, DeviceError | None]:
    """Start the app with a task and wait for its end.

    Returns the result's text and, where it is but a part, what ended it. DeviceError where nothing was measured.
    """
    _ask(device, AWAKE)
    words = ("am", "start", "-W", "-n", ACTIVITY, "--es", "task", json.dumps(asked))
    task.handed = True
    done = run_words(device, words, INSTALL_S)
    if done.status or "Error" in done.out + done.err:
        task.handed = False
        met = f"{device.name} does not start the app ({_cut(done.out + done.err)})"
        raise DeviceError(met, "its window", "see what it says")
    try:
        end = _wait(device, task, limit_s)
        if end.get("error") or not end.get("result"):
            met = f"the app on {device.name}: {end.get('error') or 'no result'}"
            raise DeviceError(met, "a result", "see what it says")
    except DeviceError as fault:
        if fault.lost or not (part := _read_result(device, _name_result(task.token))[0]):
            raise
        return part, fault
    text, said = _read_result(device, end["result"])
    if not text:
        raise DeviceError(f"{end['result']} of the app cannot be read ({_cut(said)})", "its result", "try again")
    return text, None


def _read_result(device: Device, name: str) -> tuple[str, str]:
    """Read a result that the app has kept: its text, or "" and why not."""
    done = run_words(device, ("cat", f"{SHOWN}/results/{name}"), INSTALL_S)
    return ("", done.err) if done.status else (done.out, "")


def _look(device: Device, task: _Task) -> tuple[bool, dict[str, Any]]:
    """Look whether the app runs, and how the task has ended: {} where it has not."""
    told = run_words(device, ("sh", "-c", LOOK, "sh", task.end, PACKAGE)).out.strip()
    return (False, json.loads(told)) if told.startswith("{") else (told == "running", {})


def _wait(device: Device, task: _Task, limit_s: float) -> dict[str, Any]:
    last, gone = time.monotonic() + limit_s, 0
    while time.monotonic() < last:
        runs, end = _look(device, task)
        if end:
            return end
        gone = 0 if runs else gone + 1
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
