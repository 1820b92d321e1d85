"""Intel's AMX, which some runtimes' kernels use on a host that has it, and no phone has."""

import ctypes
import os
import struct

NO_NEW_PRIVILEGES, SECCOMP, FILTER = 38, 22, 2  # words of prctl(2)
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # of a filter, as in linux/bpf_common.h
REFUSE, ALLOW = 0x0005_0001, 0x7FFF_0000  # with EPERM; and on with the call
ARCH_PRCTL, REQUEST = 158, 0x1023  # the call on x86-64 that asks for the registers
NUMBER, FIRST_ARGUMENT = 0, 16  # bytes into what a filter sees of a call


def refuse_amx() -> None:
    """From now on the kernel refuses AMX to this thread and what it starts, as where the CPU has none. For x86-64
    Linux, before a runtime is imported. OSError if it cannot be."""
    steps = [  # code, how many to skip if equal, and if not, value
        (LOAD, 0, 0, NUMBER),
        (EQUAL, 0, 3, ARCH_PRCTL),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (EQUAL, 0, 1, REQUEST),
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("H6xQ", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(SECCOMP, FILTER, program, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, f"AMX cannot be refused: {os.strerror(error)}")
