"""A .pte, run by ExecuTorch's own runtime, which takes PyTorch's tensors alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bigvit_edge.artifact import Runner
from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError
from bigvit_edge.signature import IMAGE, Array, Signature, Tensor
from bigvit_edge.tasks import CLASSIFICATION, find_task

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

    Where its delegate is the bve runtime, with that library; where it is Core ML, not to be had here, in
    runtime/mil.
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
                return load_package(path, threads, name, read_words(program))
            raise explain_failure(path, written[-1].rpartition("] ")[2] if written else str(e)) from e

    words = read_words(program)
    signature = describe_method(path, loaded.method_meta(), words)

    def run(given: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
        arrays = [np.require(given[tensor.name], tensor.dtype, ["C", "W"]) for tensor in signature.inputs]
        with explained(path):
            found = loaded(tuple(map(torch.from_numpy, arrays)))
        made = (np.asarray(output.numpy(), np.float32) for output in found)
        return dict(zip((tensor.name for tensor in signature.outputs), made, strict=True))

    return Runner(run, signature, words)


def read_words(program: Any) -> dict[str, str]:
    """Read what a program says of itself.

    In a .pte that is a method for each word.
    """
    known = [program.get_method_name(i) for i in range(program.num_methods())]
    own = {word.removeprefix(METADATA): program.load_method(word) for word in known if word.startswith(METADATA)}
    return {word: str(say(())[0]) for word, say in own.items()}


def read_names(words: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Read what a method's inputs and outputs are called.

    Of several the words have the names; an image and its answer are called as the task does.
    """
    answer = find_task(words.get("task", CLASSIFICATION)).OUTPUTS[0]
    return words.get("inputs", IMAGE).split(","), words.get("outputs", answer).split(",")


def check_counts(path: Path, counts: tuple[int, int], names: tuple[list[str], list[str]]) -> None:
    """Check that a method has as many inputs and outputs as names.

    UserError where it has not.
    """
    if counts != tuple(map(len, names)):
        met = f"{path}: a method has {counts[0]} inputs and {counts[1]} outputs"
        raise UserError(met, f"{', '.join(names[0])} in, {', '.join(names[1])} out", "export the model again")


def describe_method(path: Path, meta: Any, words: Mapping[str, str]) -> Signature:
    """Describe what a method takes and gives.

    meta: what ExecuTorch says of it, all but the names.
    """
    names = read_names(words)
    check_counts(path, (meta.num_inputs(), meta.num_outputs()), names)
    inputs = [(name, meta.input_tensor_meta(i)) for i, name in enumerate(names[0])]
    outputs = [(name, meta.output_tensor_meta(i)) for i, name in enumerate(names[1])]
    return Signature(
        tuple(Tensor(name, tuple(told.sizes()), read_dtype(path, told)) for name, told in inputs),
        tuple(Tensor(name, tuple(told.sizes())) for name, told in outputs),
    )


def load_core(path: Path) -> None:
    """Load the bve runtime as a backend of this process's ExecuTorch.

    UserError, if that cannot be, of the file that wants it.
    """
    try:
        load_library()
    except UserError as e:
        raise UserError(f"{path} is run by {LIBRARY}: {e.met}", e.expected, e.do) from e


def load_package(path: Path, threads: int, method: str, words: Mapping[str, str]) -> Runner:
    """Open the Core ML package of that method in runtime/mil.

    Its inputs and outputs go by the method's names, which the package has not, and in its order. UserError if anything
    of the method is outside of it: the runtime here could not pass on what it cannot compute.
    """
    try:
        return _load_package(path, threads, method, words)
    except UserError:
        raise
    except Exception as e:  # damaged bytes make the reader raise anything
        met = f"{path} cannot be read ({type(e).__name__}: {e})"
        raise UserError(met, "a .pte file as exported", "export the model again") from e


def _load_package(path: Path, threads: int, method: str, words: Mapping[str, str]) -> Runner:
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
    inputs, outputs = read_names(words)
    check_counts(path, (len(plan.inputs), len(plan.outputs)), (inputs, outputs))
    places = dict(zip((*plan.inputs, *plan.outputs), (*inputs, *outputs), strict=True))
    (call,) = (call for call in calls if type(call).__name__ == "DelegateCall")
    runner = mil.load_files(mil.unpack_blob(blob, path), path, function, threads=threads)
    return rename(runner, [places[place] for place in call.args], words)


def rename(runner: Runner, called: Sequence[str], words: Mapping[str, str]) -> Runner:
    """Let a package's inputs and outputs have other names.

    called: these, in the package's order; they come to be in the order of the words.
    """
    own, names = runner.signature, read_names(words)
    specs = {name: replace(spec, name=name) for name, spec in zip(called, (*own.inputs, *own.outputs), strict=True)}

    def run(given: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
        found = runner.run({spec.name: given[name] for name, spec in zip(called, own.inputs, strict=False)})
        made = dict(zip(called[len(own.inputs) :], (found[spec.name] for spec in own.outputs), strict=True))
        return {name: made[name] for name in names[1]}

    inputs, outputs = (tuple(specs[name] for name in side) for side in names)
    return Runner(run, Signature(inputs, outputs), words)
