"""A .pte, run by ExecuTorch's own runtime, which takes PyTorch's tensors alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bigvit_edge.artifact import Array, Runner
from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError

with silenced():
    from bigvit_edge.runtime.executorch import (
        BACKEND,
        FAILURES,
        LIBRARY,
        METADATA,
        explain_failure,
        explained,
        find_method,
        load_library,
        open_program,
        read_dtype,
    )

# What ExecuTorch says of our delegate, and of our kernel, where libbve_executorch is not loaded.
UNREGISTERED = (f"Backend {BACKEND} is not registered", "kernel 'bve::dispatch.out' not found")
COREML = "CoreMLBackend"  # the delegate that runs on Apple's systems alone
REFERENCE = b"CMJR"  # before the JSON that stands in the place of that one's blob


def load(path: Path, threads: int = 1, method: str | None = None) -> Runner:
    """Open the program in ExecuTorch's own runtime.

    Where its delegate is our core, with that library; where it is Core ML, which is not to be had here, in runtime/mil.
    UserError if it is no program, or has no such method.

    The runtime has one pool of threads in a process: the last call's `threads` holds for every program loaded before.
    """
    with silenced() as said:
        try:
            program = open_program(path, threads)
            name = find_method(path, program, method)
            try:
                loaded = program.load_method(name)
            except FAILURES:
                if not any(words in said() for words in UNREGISTERED):
                    raise
                load_core(path)
                loaded = program.load_method(name)
        except FAILURES as e:
            written = said().splitlines()  # the reason is the last line, behind "[program.cpp:168] "
            if any(f"Backend {COREML} is not registered" in line for line in written):
                return load_package(path, threads, name)
            raise explain_failure(path, written[-1].rpartition("] ")[2] if written else str(e)) from e

    def run(images: NDArray[Any]) -> Array:
        with explained(path):
            outputs = loaded((torch.from_numpy(np.require(images, dtype, ["C", "W"])),))
        (logits,) = outputs
        return np.asarray(logits.numpy(), np.float32)

    meta = loaded.method_meta()
    if (counts := (meta.num_inputs(), meta.num_outputs())) != (1, 1):
        met = f"{path}: {name} has {counts[0]} inputs and {counts[1]} outputs"
        raise UserError(met, "one image in, logits out", "export the model again")
    image, logits = meta.input_tensor_meta(0), meta.output_tensor_meta(0)
    dtype = read_dtype(path, image)
    known = [program.get_method_name(i) for i in range(program.num_methods())]
    own = {word.removeprefix(METADATA): program.load_method(word) for word in known if word.startswith(METADATA)}
    words = {word: str(say(())[0]) for word, say in own.items()}
    return Runner(run, tuple(image.sizes()), tuple(logits.sizes()), words, dtype)


def load_core(path: Path) -> None:
    """Load our core as a backend of this process's ExecuTorch.

    UserError, if that cannot be, of the file that wants it.
    """
    try:
        load_library()
    except UserError as e:
        raise UserError(f"{path} is run by {LIBRARY}: {e.met}", e.expected, e.do) from e


def load_package(path: Path, threads: int, method: str) -> Runner:
    """Open the Core ML package of that method in runtime/mil.

    UserError if anything of the method is outside of it: the runtime here could not pass on what it cannot compute.
    """
    try:
        return _load_package(path, threads, method)
    except UserError:
        raise
    except Exception as e:  # damaged bytes make the reader raise anything
        met = f"{path} cannot be read ({type(e).__name__}: {e})"
        raise UserError(met, "a .pte file as exported", "export the model again") from e


def _load_package(path: Path, threads: int, method: str) -> Runner:
    from executorch.exir._serialize._program import deserialize_pte_binary  # here, because this takes seconds

    from bigvit_edge.runtime import mil

    pte = deserialize_pte_binary(path.read_bytes())
    plan = next(plan for plan in pte.program.execution_plan if plan.name == method)
    calls = [instruction.instr_args for chain in plan.chains for instruction in chain.instructions]
    kinds = {type(call).__name__ for call in calls} - {"FreeCall", "MoveCall"}
    if [delegate.id for delegate in plan.delegates] != [COREML] or kinds != {"DelegateCall"}:
        names = [f"{op.name}.{op.overload}" for op in plan.operators] + [d.id for d in plan.delegates]
        raise UserError(
            f"{path}: {method} is made of {', '.join(names)}, and Core ML runs on Apple's systems alone",
            "one Core ML delegate, which can be evaluated here",
            "try the file on the device",
        )
    blob, function = bytes(pte.program.backend_delegate_data[plan.delegates[0].processed.index].data), None
    if blob.startswith(REFERENCE):
        reference = json.loads(blob.removeprefix(REFERENCE))
        function = reference["functionName"]
        blob = bytes(pte.named_data.buffers[pte.named_data.pte_data[reference["key"]].buffer_index])
    return mil.load_files(mil.unpack_blob(blob, path), path, function, threads=threads)
