"""A file in its own runtime, on whatever machine has Python: `bve-run serve` for .tflite, .onnx and .pte.

It is copied to the device, with frame_reader.py, so it imports nothing but the standard library, numpy and the one
runtime. Lines come in and lines of JSON go out, as docs/devices.md has them; it ends when stdin ends, in a run too.
"""

import argparse
import ctypes
import gc
import importlib
import json
import mmap
import os
import platform
import runpy
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns as read_clock
from typing import Any
from urllib.parse import unquote_to_bytes

try:
    import numpy as np
except ModuleNotFoundError:
    sys.exit(f"no numpy for {sys.executable}, expected it beside a file's runtime; do there: pip install numpy")

PIP = {"litert": "ai-edge-litert", "onnx": "onnxruntime", "executorch": "executorch"}
LITERT = ("ai_edge_litert", "tflite_runtime")  # the first that is installed
ORDER = "metadata_methods"  # of a .pte: a method that names the others in the order in which they were given
DTYPES = {0: "uint8", 6: "float32"}  # of a .pte, by number, as bigvit_edge/runtime/executorch.py's
SEED = 0  # of the image: any would do
LOOK_NS = 5_000_000  # between looks at whether whoever asks is still there


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a runtime prints is none of our lines
    try:
        serve(parse(sys.argv[1:]), lambda told: print(json.dumps(told), file=out, flush=True))
    except Exception as e:
        sys.exit(f"{type(e).__name__}: {(str(e).strip() or 'no reason given').splitlines()[0]}")


def serve(options: argparse.Namespace, tell: "Callable[[dict[str, Any]], None]") -> None:
    if options.cores:
        keep_to(options.cores)
    runtime = RUNTIMES[options.runtime](options)  # which imports it
    if options.probe:
        tell({"runtime": runtime.name, "version": runtime.version})
        return
    if options.evict:
        evict(options.file)
    cached = share_cached(options.file)
    start = read_clock()
    shape, dtype = runtime.load(options.file, options)
    loaded = read_clock()
    if not all(isinstance(side, int) and side > 0 for side in shape):
        sys.exit(f"an image of shape {shape}, expected one of a fixed size; export the model for one")
    image = draw_noise(shape, dtype)
    before = read_clock()
    runtime.run(image)
    end = read_clock()
    tell({
        "runtime": runtime.name, "version": runtime.version,
        "build": {"python": platform.python_version(), "platform": platform.platform()},
        "load_ms": (loaded - start) / 1e6, "first_ms": (end - before) / 1e6, "cached_share": cached,
        "threads": options.threads, "cores_allowed": sorted(os.sched_getaffinity(0)),
        "image_floats": int(image.size), "session": {},
    })  # fmt: skip
    commands, frames = Commands(), None
    gc.disable()
    while (command := commands.read()) is not None:
        verb, *words = command.split(" ")
        if verb in ("run", "frame"):
            turn = parse_turn(command, words)
            if verb == "run":
                told = time_turn(runtime, image, turn, commands, options.clock)
            else:
                frames = frames or runpy.run_path(options.frames)["Labeller"](runtime, image, options.preprocessing)
                told = frames.time_turn(turn, commands)
            if told is None:
                return
            tell(told)
        elif command == "memory":
            tell({"peak_bytes": read_status("VmHWM"), "anonymous_bytes": read_status("RssAnon")})
        elif verb == "answer" and len(words) == 2:
            source, target = map(unquote_to_bytes, words)
            tell({"images": answer(runtime, image, source, target)})
        else:
            sys.exit(f"{command!r}, expected run, frame, memory or answer IN OUT; check who asks")


def draw_noise(shape: "tuple[int, ...]", dtype: Any) -> Any:
    random = np.random.default_rng(SEED)
    if dtype == np.uint8:
        return random.integers(0, 256, shape, np.uint8)
    if dtype == np.float32:
        return random.standard_normal(shape, dtype=np.float32)
    sys.exit(f"an image of {np.dtype(dtype)}, expected one of float32 or uint8; export the model again")


def parse_turn(command: str, words: "list[str]") -> "tuple[float, int, int]":
    """Parse seconds, images, and nanoseconds from one to the next."""
    with suppress(ValueError):
        seconds, images, period_ms = map(float, words)
        if 0 <= seconds <= 86400 and 1 <= images <= 1e6 and 0 <= period_ms <= 1e6:
            return seconds, int(images), int(period_ms * 1e6)
    sys.exit(f"{command!r}, expected run or frame SECONDS IMAGES PERIOD_MS; check who asks")


def keep_to(cores: "list[int]") -> None:
    """Keep to these cores, so far as the system lets it."""
    try:
        os.sched_setaffinity(0, cores)
    except (OSError, OverflowError) as e:
        sys.exit(f"--cores that this process may not run on ({e}), expected some of those that it may")


def parse(words: "list[str]") -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runtime", choices=sorted(RUNTIMES))
    parser.add_argument("file", nargs="?", default="")
    parser.add_argument("--probe", action="store_true", help="only say which version of the runtime there is")
    parser.add_argument("--method", help="entry point; the file's first if not given")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cores", type=parse_cores, default=[], help="cores that it may run on, as 0,4-7")
    parser.add_argument("--evict", action="store_true", help="the file leaves the system's cache before it is loaded")
    parser.add_argument("--clock", help="bve-run, which measures the clock")
    parser.add_argument("--delegate", help="our core for this runtime, a shared object")
    parser.add_argument("--preprocessing", default="", help="how pictures are prepared, JSON; else as the file says")
    beside = os.path.join(os.path.dirname(__file__), "frame_reader.py")  # noqa: PTH118, PTH120  one import less
    parser.add_argument("--frames", default=beside, help="where frame_reader.py lies, which prepares camera frames")
    parser.add_argument("--saturating", action="store_true", help="onnx: the CPU's int8 products saturate")
    return parser.parse_args(words)


def parse_cores(text: str) -> "list[int]":
    pairs = (part.partition("-") for part in text.split(","))
    return [core for first, _, last in pairs for core in range(int(first), int(last or first) + 1)]


# ---- lines of stdin, and turns ---------------------------------------------------------------------------------------


class Commands:
    """Lines of stdin; whether it has ended is told without waiting."""

    def __init__(self) -> None:
        self.buffer, self.is_over = b"", False

    def read(self) -> "str | None":
        while b"\n" not in self.buffer and not self.is_over:
            self.fill()
        line, newline, self.buffer = self.buffer.partition(b"\n")
        return line.decode() if newline else None

    def ended(self) -> bool:
        if b"\n" not in self.buffer and not self.is_over and select.select([0], [], [], 0)[0]:
            self.fill()
        return self.is_over

    def fill(self) -> None:
        data = os.read(0, 4096)
        self.is_over = not data
        self.buffer += data


def time_turn(
    runtime: Any, image: Any, turn: "tuple[float, int, int]", commands: Commands, clock: "str | None"
) -> "dict[str, Any] | None":
    """Time images for some seconds and a number of images at least.

    None if whoever asks has gone.
    """
    seconds, images, period_ns = turn
    times: list[float] = []
    cores: Counter[int] = Counter()
    run, get_core = runtime.run, getattr(LIBC, "sched_getcpu", lambda: -1)
    before_mhz, throttled = look_around(clock, get_core())
    run(image)  # what rested meanwhile is awake again
    threads = read_threads()
    cpu_start, start = time.process_time_ns(), read_clock()
    due, now, look, end = start + period_ns, start, start, start + int(seconds * 1e9)
    while len(times) < images or now < end:
        if now >= look:
            if commands.ended():
                return None
            look = now + LOOK_NS
        if period_ns and (early := due - read_clock()) > 0:
            time.sleep(early / 1e9)
        due += period_ns
        before = read_clock()
        run(image)
        now = read_clock()
        times.append((now - before) / 1e6)
        cores[get_core()] += 1
    cpu_ns = time.process_time_ns() - cpu_start
    thread_ns: Counter[str] = Counter()
    for name, (spent_ns, core) in read_threads().items():
        thread_ns[str(core)] += spent_ns - threads.get(name, (0, 0))[0]
    after_mhz, throttled_now = look_around(clock, get_core())
    cut = None if throttled is None or throttled_now is None else throttled_now - throttled
    return {
        "start_ns": start, "end_ns": now, "times_ms": times, "cpu_ms": cpu_ns / 1e6 / len(times),
        "clock_mhz": [before_mhz, after_mhz], "cores": {str(core): count for core, count in sorted(cores.items())},
        "thread_ms": {core: ns / 1e6 for core, ns in sorted(thread_ns.items()) if ns},
        "throttled_periods": cut,
    }  # fmt: skip


def read_threads() -> "dict[str, tuple[int, int]]":
    """Read each thread's CPU time, in ns, and last core, if told."""
    threads: dict[str, tuple[int, int]] = {}
    for task in os.listdir("/proc/self/task"):  # noqa: PTH208  one import less
        with suppress(OSError, ValueError, IndexError):
            spent, stat = (open(f"/proc/self/task/{task}/{name}").read() for name in ("schedstat", "stat"))  # noqa: PTH123, SIM115
            threads[task] = int(spent.split()[0]), int(stat.rpartition(")")[2].split()[36])
    return threads


def look_around(program: "str | None", core: int) -> "tuple[float | None, int | None]":
    """Measure a core's clock, in MHz, and count what a quota cut.

    In periods so far, of this process's cgroups. By bve-run, which is in the same; None where it is not known.
    """
    if not program:
        return None, None
    words = [program, "clock", *(["--cores", str(core)] if core >= 0 else [])]
    told = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if told.returncode:
        return None, None
    found = json.loads(told.stdout)
    return found["clock_mhz"], found["throttled_periods"]


def answer(runtime: Any, image: Any, source: bytes, target: bytes) -> int:
    """Write the logits of a file of images to another.

    These are of the type that the model's file takes. Returns how many there were.
    """
    images = np.fromfile(os.fsdecode(source), image.dtype.newbyteorder("<")).reshape(-1, *image.shape)
    with open(target, "wb") as file:  # noqa: PTH123  one import less
        for each in images:
            file.write(np.ascontiguousarray(runtime.run(each), "<f4").tobytes())
    return len(images)


# ---- the system ------------------------------------------------------------------------------------------------------

LIBC = ctypes.CDLL(None, use_errno=True)


def evict(path: str) -> None:
    file = os.open(path, os.O_RDONLY)
    with suppress(OSError):
        os.fdatasync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def share_cached(path: str) -> "float | None":
    """Find the share of the file's pages that is cached, if told."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as pages:  # noqa: PTH123
            count = -(-len(pages) // mmap.PAGESIZE)
            told, first = (ctypes.c_ubyte * count)(), ctypes.c_char.from_buffer(pages)
            failed = LIBC.mincore(ctypes.byref(first), ctypes.c_size_t(len(pages)), told)
            del first
            return None if failed else sum(page & 1 for page in told) / count
    except (OSError, ValueError):
        return None


def read_status(name: str) -> int:
    """Read a line of /proc/self/status, in bytes; 0 without it."""
    with open("/proc/self/status") as status:  # noqa: PTH123
        lines = dict(line.split(":", 1) for line in status)
    return int(lines.get(name, "0 kB").split()[0]) * 1024


# ---- runtimes: load(path, options) -> shape and type of an image; run(image) -> logits -------------------------------


class LiteRT:
    name = "litert"

    def __init__(self, options: argparse.Namespace) -> None:
        package, self.framework = find_package(self.name, *LITERT, module=".interpreter")
        self.version = f"{package} {find_version(package)}"

    def load(self, path: str, options: argparse.Namespace) -> "tuple[tuple[int, ...], Any]":
        load, threads = self.framework.load_delegate, {"threads": options.threads}
        delegates = [load(options.delegate, threads)] if options.delegate else []
        self.interpreter = self.framework.Interpreter(
            model_path=path, num_threads=options.threads, experimental_delegates=delegates
        )
        names = list(self.interpreter.get_signature_list())
        if len(names) > 1:  # the others are not set up
            self.runner = self.interpreter.get_signature_runner(options.method or names[0])
            ((self.key, details),) = self.runner.get_input_details().items()
            return tuple(map(int, details["shape"])), details["dtype"]
        self.runner = None
        self.interpreter.allocate_tensors()
        image, logits = take_only(self.interpreter.get_input_details(), self.interpreter.get_output_details())
        self.image, self.logits = image["index"], logits["index"]
        return tuple(map(int, image["shape"])), image["dtype"]

    def run(self, image: Any) -> Any:
        if self.runner:
            (logits,) = self.runner(**{self.key: image}).values()
            return logits
        self.interpreter.set_tensor(self.image, image)
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.logits)


class ONNX:
    name = "onnx"

    def __init__(self, options: argparse.Namespace) -> None:
        _, self.framework = find_package(self.name, "onnxruntime")
        self.version = f"onnxruntime {self.framework.__version__}"

    def load(self, path: str, options: argparse.Namespace) -> "tuple[tuple[int, ...], Any]":
        chosen = self.framework.SessionOptions()
        chosen.intra_op_num_threads, chosen.inter_op_num_threads = options.threads, 1
        chosen.log_severity_level = 4
        chosen.add_session_config_entry("session.x64quantprecision", str(int(options.saturating)))
        self.session = self.framework.InferenceSession(path, chosen, providers=["CPUExecutionProvider"])
        image, logits = take_only(self.session.get_inputs(), self.session.get_outputs())
        self.image, self.logits = image.name, [logits.name]
        return tuple(image.shape), {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}.get(image.type, object)

    def run(self, image: Any) -> Any:
        return self.session.run(self.logits, {self.image: image})[0]


class ExecuTorch:
    name = "executorch"

    def __init__(self, options: argparse.Namespace) -> None:
        _, self.torch = find_package(self.name, "torch")
        _, self.framework = find_package(self.name, "executorch", module=".extension.pybindings._portable_lib")
        self.version = f"executorch {find_version('executorch')}"
        self.torch.set_num_threads(options.threads)

    def load(self, path: str, options: argparse.Namespace) -> "tuple[tuple[int, ...], Any]":
        if options.delegate:
            ctypes.CDLL(options.delegate)
        if self.framework._threadpool_get_thread_count() != options.threads:
            self.framework._unsafe_reset_threadpool(options.threads)
        self.program = self.framework._load_program(path)
        names = [self.program.get_method_name(i) for i in range(self.program.num_methods())]
        if ORDER in names:
            names = str(self.program.load_method(ORDER)(())[0]).split(",")
        self.method = self.program.load_method(options.method or names[0])
        image = self.method.method_meta().input_tensor_meta(0)
        return tuple(image.sizes()), np.dtype(DTYPES.get(image.dtype(), "object"))

    def run(self, image: Any) -> Any:
        return self.method((self.torch.from_numpy(image),))[0].numpy()


RUNTIMES = {runtime.name: runtime for runtime in (LiteRT, ONNX, ExecuTorch)}


def take_only(inputs: "list[Any]", outputs: "list[Any]") -> "tuple[Any, Any]":
    if len(inputs) == len(outputs) == 1:
        return inputs[0], outputs[0]
    sys.exit(f"{len(inputs)} inputs and {len(outputs)} outputs, expected an image and its logits")


def find_package(runtime: str, *names: str, module: str = "") -> "tuple[str, Any]":
    """Find the first that is installed; import it or its module."""
    for name in names:
        try:
            return name, importlib.import_module(name + module)
        except ModuleNotFoundError as e:
            if e.name != name:  # one that it needs itself
                raise
    missing = " or ".join(names)
    sys.exit(f"no {missing} for {sys.executable}, expected this file's runtime; do there: pip install {PIP[runtime]}")


def find_version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    with suppress(PackageNotFoundError):
        return version(package.replace("_", "-"))
    return ""


if __name__ == "__main__":
    main()
