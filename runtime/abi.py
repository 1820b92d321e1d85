"""The C side of our runtime: libbve.so, where it is, its structs and its functions' types. The contract is bve.h's."""

import ctypes
import os
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

from bigvit_edge.errors import UserError

LIBRARY = "libbve.so"
OVERRIDE = "BVE_LIBRARY"  # the environment's word for libbve.so elsewhere, and for the others beside it
# What a door is built with; where that is missing, pip builds the others.
NEEDED = {
    "libbve_executorch.so": "pip install 'bigvit-edge[executorch]', then once more ",
    "libbve_litert.so": "install npm, then ",
}
ABI_VERSION = 2
ERROR_BYTES = 512


class Failure(ctypes.Structure):
    """Holds why a call failed, in the core's words."""

    _fields_ = (("text", ctypes.c_char * ERROR_BYTES),)


class Options(ctypes.Structure):
    """What a session is started with: bve_options."""

    _fields_ = tuple(
        (name, ctypes.c_uint32)
        for name in ("abi_version", "threads", "little_threads", "isa", "pin", "spin_us", "choose")
    )


class Picture(ctypes.Structure):
    """Pixels of 8 bits a channel: bve_picture."""

    _fields_ = (
        ("pixels", ctypes.c_void_p), ("stride_bytes", ctypes.c_size_t), ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32), ("format", ctypes.c_uint32), ("reserved", ctypes.c_uint32),
    )  # fmt: skip


class Frame(ctypes.Structure):
    """A camera's frame: bve_frame."""

    _fields_ = (
        ("planes", ctypes.c_void_p * 3), ("stride_bytes", ctypes.c_size_t * 3), ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32), ("format", ctypes.c_uint32), ("rotation", ctypes.c_uint32),
        ("matrix", ctypes.c_uint32), ("pixel_stride", ctypes.c_uint32), ("reserved", ctypes.c_uint32 * 2),
    )  # fmt: skip


class Event(ctypes.Structure):
    """What a thread did of an op at once.

    start_ns, end_ns: of time.monotonic_ns; op: which of those that `inspect` lists; thread: 0 is who called run; tiles:
    how many of the pieces that the op is cut in; core: where it ended, -1 where the system does not say.
    """

    _fields_ = (
        ("start_ns", ctypes.c_uint64), ("end_ns", ctypes.c_uint64), ("op", ctypes.c_uint32),
        ("thread", ctypes.c_uint32), ("tiles", ctypes.c_uint32), ("core", ctypes.c_int32),
    )  # fmt: skip


def explain(text: str) -> UserError:
    """Put what the core says into our three parts.

    The core says 'what was met, expected this; do that'.
    """
    found, _, do = text.partition("; ")
    met, _, expected = found.partition(", expected ")
    return UserError(met, expected or "what the library can take", do)


@cache
def load_library() -> ctypes.CDLL:
    """Load libbve.so with its functions' types.

    UserError if it is nowhere, or of another version.
    """
    path = find_library()
    try:
        library = ctypes.CDLL(str(path))
        version = library.bve_version()
    except (OSError, AttributeError) as e:
        raise UserError(f"{path}: {e}", "a libbve.so for this machine", "build it: pip install .") from e
    if version != ABI_VERSION:
        raise UserError(f"{path} has ABI version {version}", f"version {ABI_VERSION}", "build it again: pip install .")
    pointer, text, error = ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(Failure)
    types: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "bve_open": (pointer, (text, error)),
        "bve_close": (None, (pointer,)),
        "bve_verify": (ctypes.c_int, (pointer, error)),
        "bve_describe": (text, (pointer,)),
        "bve_start": (pointer, (pointer, ctypes.c_float, ctypes.POINTER(Options), error)),
        "bve_stop": (None, (pointer,)),
        "bve_run": (ctypes.c_int, (pointer, pointer, ctypes.c_size_t, pointer, ctypes.c_size_t, error)),
        "bve_inspect": (text, (pointer,)),
        "bve_cpu_time": (ctypes.c_uint64, (pointer,)),
        "bve_count_cores": (ctypes.c_uint32, ()),
        "bve_trace": (None, (pointer, ctypes.c_int)),
    }
    later = {  # than the first library of this version: who calls them asks for them by find_function
        "bve_events": (ctypes.c_size_t, (pointer, pointer, ctypes.c_size_t, pointer)),
        "bve_rows": (ctypes.c_size_t, (pointer, ctypes.c_size_t, pointer, ctypes.c_size_t)),
        "bve_prepare": (ctypes.c_int, (pointer, ctypes.POINTER(Picture), pointer, ctypes.c_size_t, error)),
        "bve_set_frame": (ctypes.c_int, (pointer, ctypes.POINTER(Frame), error)),
        "bve_read_frame": (ctypes.c_int, (pointer, ctypes.POINTER(Frame), pointer, ctypes.c_size_t, error)),
        "bve_read_frame_by": (ctypes.c_int, (text, ctypes.POINTER(Frame), pointer, ctypes.c_size_t, error)),
        "bve_label": (text, (pointer, ctypes.c_size_t)),
        "bve_measure": (pointer, (ctypes.c_uint32, error)),
        "bve_free": (None, (pointer,)),
        "bve_count": (pointer, (text,)),
        "bve_read": (pointer, (pointer,)),
        "bve_uncount": (None, (pointer,)),
    }
    for name, (result, arguments) in (types | {name: later[name] for name in later if hasattr(library, name)}).items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def find_function(name: str) -> Any:
    """Find a function of libbve.so.

    UserError if the library is older than the function.
    """
    try:
        return getattr(load_library(), name)
    except AttributeError as e:
        raise UserError(f"{find_library()} has no {name}", "a library of today", "build it again: pip install .") from e


def find_library(name: str = LIBRARY) -> Path:
    """Find a library of ours.

    $BVE_LIBRARY if it is set, and whatever else lies beside that; then beside this file, or where an editable install
    puts it. UserError if it is nowhere.
    """
    installed = (Path(sysconfig.get_path(kind)) / "bigvit_edge/runtime" for kind in ("platlib", "purelib"))
    folders = [Path(__file__).parent, *installed]
    if chosen := os.environ.get(OVERRIDE):
        if not Path(chosen).is_file():
            raise UserError(f"{OVERRIDE}={chosen}, which is no file", f"the path of {LIBRARY}", f"or unset {OVERRIDE}")
        if name == LIBRARY:
            return Path(chosen)
        folders.insert(0, Path(chosen).parent)
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    met = f"no {name} beside {folders[0]}"
    do = f"{NEEDED.get(name, '')}pip install . on Linux, or set {OVERRIDE} to the path of the {LIBRARY} beside it"
    raise UserError(met, "one built for this machine", do)
