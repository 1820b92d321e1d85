"""A bench, from files and a device to a result: rows take turns, each in a process of its own. The protocol and its
reasons are in docs/devices.md."""

import hashlib
import json
import random
import shlex
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from bigvit_edge.artifact import list_versions
from bigvit_edge.bench.answers import Pictures, judge_answers
from bigvit_edge.bench.cases import Case
from bigvit_edge.bench.conditions import check_cooling, check_same, name_build, read_bits
from bigvit_edge.bench.energy import NoEnergyError, find_meter, measure_energy
from bigvit_edge.bench.frames import Spent, add_frames, begin_frames
from bigvit_edge.bench.policies import Policy, list_policies
from bigvit_edge.bench.runners import Runner, Tools, explain_absence, find_tools, probe
from bigvit_edge.bench.thermometers import Thermometer
from bigvit_edge.bench.verdicts import judge
from bigvit_edge.bench.warmups import warm_up
from bigvit_edge.devices.contract import Device, DeviceError
from bigvit_edge.devices.null import Null
from bigvit_edge.devices.occupancy import check_free, lock
from bigvit_edge.devices.store import Store
from bigvit_edge.errors import UserError
from bigvit_edge.interruption import shielded
from bigvit_edge.results import NOT_AVAILABLE, Energy, Load, Protocol, Result, Row, write_result

MEMORY_IMAGES = 3
REST_S = 0.005  # between turns: what a pool does after a turn, as watching for work, falls on nobody
SAVE_S, SAVE_SHARE = 10.0, 0.01  # between writes of what was measured so far; of the time, at most
COOL_S, COOL_STEP_S = 900.0, 1.0

Step = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Plan:
    """What is asked of a bench.

    clusters: policies by name, none for one thread on the fastest cluster. threads: of each, None for a policy's own
    count. protocol: see Result. energy: whether to measure it. keep_files: leave ours on the device. notes: of the
    pictures.
    """

    protocol: Protocol
    clusters: tuple[str, ...] = ()
    threads: int | None = None
    pictures: Pictures | None = None
    energy: bool = True
    keep_files: bool = False
    command: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """Those who are told how a bench goes.

    step: a step's name, for as long as it takes; round: rounds done, of how many (0: by the clock), and their share of
    the whole.
    """

    step: Step = lambda name: nullcontext()
    round: Callable[[int, int, float], None] = lambda done, of, share: None


SILENT = Progress()


def measure(
    cases: Sequence[Case], device: Device, bve_run: Callable[[Store], str], plan: Plan, path: Path,
    *, earlier: Result | None = None, progress: Progress = SILENT,
) -> Result:  # fmt: skip
    """Measure files on a device, and write the result to `path`.

    bve_run: brings that program to the device. earlier: a part of the same bench, which is gone on with. What was
    measured is written every few seconds; a device that is lost raises DeviceError, and what there is stays. UserError
    before anything is measured, where nothing could be.
    """
    with ExitStack() as stack:
        store = stack.enter_context(Store(device, plan.keep_files))
        with progress.step(f"tools to {device.name}"):
            if device.launch != Null.launch:
                check_free(device)
            there = bve_run(store)
            stack.enter_context(lock(device, there))
            stack.push(store)  # its files go while the device is still held
            store.clear()
            tools = find_tools(device, store, there, {case.format for case in cases})
        check_cooling(tools.machine, plan.protocol)
        policies = list_policies(tools.machine, plan.clusters, plan.threads)
        bench = _Bench(device, store, tools, plan, path, progress)
        bench.begin(cases, policies, earlier)
        try:
            bench.run(stack)
            return bench.finish()
        except BaseException as e:
            with shielded():
                for note in bench.keep():
                    e.add_note(note)
            raise


def make_key(cases: Sequence[Case], device: str, plan: Plan) -> str:
    """Make a key of what a bench measures and how.

    Two commands share it if one can go on with the other's result.
    """
    told = [
        list_versions(())["bigvit-edge"], device, plan.clusters, plan.threads, asdict(plan.protocol), plan.energy,
        [(case.name, case.sha256, case.method.name if case.method else None) for case in cases],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


@dataclass
class _Bench:
    """A bench in progress: rows, and the case and policy of each."""

    device: Device
    store: Store
    tools: Tools
    plan: Plan
    path: Path
    progress: Progress
    rows: list[Row] = field(default_factory=list)
    what: list[tuple[Case, Policy]] = field(default_factory=list)
    before: Result | None = None
    part: int = 0
    spent_s: float = 0
    saved: float = 0
    save_s: float = 0  # how long that took
    thermometer: Thermometer | None = None

    def begin(self, cases: Sequence[Case], policies: Sequence[Policy], earlier: Result | None) -> None:
        """Make the rows, those of an earlier part with what they hold."""
        self.what = [
            (case, policy) for policy in policies for case in cases if case.format == "bve" or not policy.ours_alone
        ]
        self.rows = [self._make_row(case, policy) for case, policy in self.what]
        if all(row.error for row in self.rows):
            why = self.rows[0].error if self.rows else f"policy {policies[0].name} is the bve runtime's alone"
            met = f"nothing of this runs on {self.device.name}: {why}"
            raise UserError(met, "a file that some runtime there takes", "see docs/devices.md")
        if earlier:
            check_same(earlier.machine, self.tools.machine)
            known = {row.name(): row for row in earlier.rows}
            self.rows = [known.get(row.name(), row) if not row.error else row for row in self.rows]
            turns = [turn for row in self.rows for turn in row.turns]
            self.part = 1 + max((turn.part for turn in turns), default=-1)
            self.spent_s = sum((turn.end_ns - turn.start_ns) / 1e9 for turn in turns)
        machine = earlier.machine if earlier else self.tools.machine
        date = earlier.date if earlier else datetime.now(UTC).isoformat(timespec="seconds")
        bits = earlier.throttled_bits[0] if earlier else read_bits(self.device, machine)
        self.before = Result(
            self.device.name, machine, self.plan.protocol, tuple(self.rows), date,
            list_versions(())["bigvit-edge"], self.plan.command, make_key(cases, self.device.name, self.plan),
            notes=self.plan.notes, throttled_bits=(bits, None),
        )  # fmt: skip

    def run(self, stack: ExitStack) -> None:
        """Run all passes, those that would disturb the turns last.

        Runners are closed with the stack.
        """
        with self.progress.step("cold loads and memory"):
            self._each(self._measure_cold)
        self._check_left()
        self._check_memory()
        runners: dict[int, Runner] = {}
        with self.progress.step("warm-up"):
            self._each(lambda i: runners.update({i: stack.enter_context(self._open(i))}))
            self._each(lambda i: self._warm(i, runners[i]))
        self._check_left()
        self.thermometer = Thermometer(self.device, self.tools.bve_run, self.tools.machine)
        with self.progress.step("turns"), self.thermometer:
            self._take_turns(runners)
        if self.plan.pictures and self.device.launch != Null.launch:
            with self.progress.step("answers"):
                self._each(lambda i: self._answer(i, runners[i]))
        if self.plan.energy:
            with self.progress.step("energy"):
                self._measure_energy(runners)

    def finish(self) -> Result:
        """Judge the rows, and write the result whole."""
        assert self.before
        bits = self.before.throttled_bits[0], read_bits(self.device, probe(self.device, self.tools.bve_run))
        rows = tuple(judge(row, self.before.machine, bits, self.plan.protocol.fps) for row in self.rows)
        result = replace(self.before, rows=rows, complete=True, throttled_bits=bits)
        return write_result(result, self.path)

    def save(self, path: Path) -> None:
        """Write what there is so far."""
        assert self.before
        start = time.monotonic()
        write_result(replace(self.before, rows=tuple(self.rows)), path)
        self.saved = time.monotonic()
        self.save_s = self.saved - start

    def keep(self) -> list[str]:
        """Write what there is after a failure, elsewhere if need be.

        Returns what to tell of it, nothing where nothing was measured.
        """
        if not any(row.turns for row in self.rows):
            return []
        spare = Path(tempfile.gettempdir()) / f"{uuid.uuid4().hex[:8]}-{self.path.name}"
        for path, with_it in ((self.path, "--resume"), (spare, f"--resume -o {shlex.quote(str(spare))}")):
            with suppress(OSError):
                self.save(path)
                return [f"what was measured until then is in {path}; the same command with {with_it} goes on"]
        if self.saved:
            return [f"a part of what was measured is in {self.path}; the rest is lost: it could be written nowhere"]
        return ["what was measured is lost: it could be written nowhere"]

    # ---- the passes, a row at a time

    def _each(self, action: Callable[[int], None], order: Sequence[int] | None = None) -> None:
        """Do something for each row that has not failed; one that fails says why, and the others go on."""
        for i in range(len(self.rows)) if order is None else order:
            if self.rows[i].error:
                continue
            try:
                action(i)
            except DeviceError as e:
                if e.lost:
                    raise
                self.rows[i] = replace(self.rows[i], error=e.met)

    def _open(self, i: int, evict: bool = False) -> Runner:
        case, policy = self.what[i]
        return Runner(self.device, self.tools, self.store, case, policy, evict)

    def _measure_cold(self, i: int) -> None:
        if self.rows[i].load:
            return
        with self._open(i, evict=True) as runner:
            cold = runner.ready
            runner.run(0, MEMORY_IMAGES)
            memory = runner.read_memory()
        load = Load(cold.load_ms, cold.first_ms, cold.cached_share, 0, 0)
        self.rows[i] = replace(self.rows[i], load=load, memory=memory)

    def _check_left(self) -> None:
        if all(row.error for row in self.rows):
            raise DeviceError(self.rows[0].error, "at least one row that can be measured", "see what it says")

    def _check_memory(self) -> None:
        """Refuse rows beyond what is free there: all processes live at once, as turns want it."""
        left = self.tools.machine.available_bytes
        files: set[str] = set()
        for i, row in enumerate(self.rows):
            if left is None or row.error or not row.memory:
                continue
            wanted = row.memory.anonymous_bytes + (0 if row.sha256 in files else row.bytes)
            files.add(row.sha256)
            if wanted > left:
                free = f"{left / 2**20:,.0f} MB that the rows before it leave free on {self.device.name}"
                self.rows[i] = replace(row, error=f"its {wanted / 2**20:,.0f} MB are more than the {free}")
            else:
                left -= wanted
        self._check_left()

    def _warm(self, i: int, runner: Runner) -> None:
        """Warm a row's process up, and note what it is."""
        ready, row = runner.ready, self.rows[i]
        if row.turns and name_build(row.runtime, row.build) != name_build(ready.runtime, ready.build):
            met = f"--resume of {row.name()}, which ran in another build of {row.runtime} than {ready.runtime} is now"
            raise UserError(met, "the runtime of the first part", "measure anew")
        images, is_warm = warm_up(runner)
        load = row.load and replace(row.load, warm_ms=ready.load_ms, first_ms=ready.first_ms)
        row = replace(
            row, runtime=ready.runtime, build=ready.build, cores_allowed=ready.cores_allowed, load=load,
            warmup_images=row.warmup_images + images, warm=is_warm,
        )  # fmt: skip
        self.rows[i] = begin_frames(row, runner)

    def _take_turns(self, runners: dict[int, Runner]) -> None:
        protocol = self.plan.protocol
        period_ms = 1e3 / protocol.fps if protocol.fps else 0
        done, start = min(len(row.turns) for row in self.rows if not row.error), time.monotonic()
        share, spent = self._share(done, start), [Spent() for _ in self.rows]
        while share < 1:
            temp_c = self._cool()

            def take(i: int, temp_c: float | None = temp_c, done: int = done) -> None:
                if len(self.rows[i].turns) > done:  # of an earlier part, which ended in the middle of a round
                    return
                time.sleep(REST_S)
                turn = runners[i].run(protocol.turn_s, protocol.turn_images, period_ms)
                turn = replace(turn, temp_c=temp_c, part=self.part)
                self.rows[i] = replace(self.rows[i], turns=(*self.rows[i].turns, turn))
                self.rows[i] = add_frames(self.rows[i], runners[i], protocol, spent[i])

            order = random.Random(done).sample(range(len(self.rows)), len(self.rows))
            self._each(take, order)  # so that no row always comes behind the same other
            self._check_left()
            done += 1
            share = self._share(done, start)
            self.progress.round(done, protocol.rounds, share)
            if time.monotonic() - self.saved > max(SAVE_S, self.save_s / SAVE_SHARE):
                self.save(self.path)

    def _share(self, done: int, start: float) -> float:
        protocol = self.plan.protocol
        if protocol.minutes:
            return (self.spent_s + time.monotonic() - start) / (60 * protocol.minutes)
        return done / protocol.rounds

    def _cool(self) -> float | None:
        """The CPU's hottest, once it is below the gate."""
        assert self.thermometer
        gate, start = self.plan.protocol.cool_c, time.monotonic()
        while True:
            temp_c = self.thermometer.read()
            if gate is None or temp_c is None or temp_c <= gate:
                return temp_c
            if time.monotonic() - start > COOL_S:
                met = f"{self.device.name} is still at {temp_c:.1f} °C after {COOL_S / 60:.0f} minutes of rest"
                raise DeviceError(met, f"{gate:g} °C, as --cool asks", "a cooler place, or a higher --cool")
            time.sleep(COOL_STEP_S)

    def _answer(self, i: int, runner: Runner) -> None:
        assert self.plan.pictures
        try:
            answers = judge_answers(self.what[i][0], runner, self.plan.pictures)
        except (DeviceError, OSError) as e:
            answers = _explain_lack(e)
        self.rows[i] = replace(self.rows[i], answers=answers)

    def _measure_energy(self, runners: dict[int, Runner]) -> None:
        try:
            meter = find_meter(self.tools.machine)
        except NoEnergyError as e:
            self.rows = [replace(row, energy=f"{NOT_AVAILABLE}: {e}") for row in self.rows]
            return

        def measure_one(i: int) -> None:
            energy: Energy | str
            try:
                energy = measure_energy(self.device, self.tools.bve_run, meter, runners[i], self.plan.protocol.fps)
            except NoEnergyError as e:
                energy = f"{NOT_AVAILABLE}: {e}"
            except DeviceError as e:
                energy = _explain_lack(e)
            self.rows[i] = replace(self.rows[i], energy=energy)

        self._each(measure_one)

    def _make_row(self, case: Case, policy: Policy) -> Row:
        return Row(
            file=case.name, sha256=case.sha256, bytes=case.bytes, format=case.format,
            precision=case.entry.precision if case.entry else "", keep=case.keep,
            method=case.method.name if case.method else None, delegated_share=case.delegated_share,
            policy=policy.name, threads=policy.threads, cores_asked=policy.cores, launch=self.device.launch,
            energy=NOT_AVAILABLE if self.plan.energy else f"{NOT_AVAILABLE}: not asked for",
            error=explain_absence(self.tools, case), frame=NOT_AVAILABLE,
        )  # fmt: skip


def _explain_lack(e: DeviceError | OSError) -> str:
    """Why there is no figure, while the row's times hold."""
    if isinstance(e, DeviceError) and e.lost:
        raise e
    return f"{NOT_AVAILABLE}: {e.met if isinstance(e, DeviceError) else e}"
