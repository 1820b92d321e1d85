"""LiteRT (.tflite), run by its interpreter with the XNNPACK delegate, or with ours (native.py).

One signature per keep ratio; all share one copy of the weights. The input stays [1, 3, S, S] as in PyTorch: the one
transpose that cuts the image into patches is needed for a channels-last image too. What each precision means is in
quantization.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import ReferenceType, WeakKeyDictionary, ref

import numpy as np
from torch.export import ExportedProgram
from torch.utils._pytree import tree_flatten

from bigvit_edge.artifact import Array, Artifact, Runner, list_versions, name_method
from bigvit_edge.errors import UserError, suggest
from bigvit_edge.export.backends.litert.contents import (
    holds_program,
    list_methods,
    read_model,
    read_strings,
    select_method,
    store_strings,
    write_batch_products,
    write_model,
)
from bigvit_edge.export.backends.litert.delegation import describe_method
from bigvit_edge.export.backends.litert.integers import narrow_file
from bigvit_edge.export.backends.litert.names import Nodes, untag_names
from bigvit_edge.export.backends.litert.quantization import quantize_file
from bigvit_edge.export.backends.litert.readback import count_conversions
from bigvit_edge.export.backends.litert.simplification import simplify
from bigvit_edge.export.console import silenced
from bigvit_edge.export.graph import Graph
from bigvit_edge.runtime.litert import LIBRARY, load_library
from bigvit_edge.runtime.litert import load as load_native

if TYPE_CHECKING:
    from bigvit_edge.target import Target

with silenced():
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter
    from litert_torch._convert import core, litert_converter
    from litert_torch._convert.signature import Signature

litert_torch.config.show_progress = False

FORMAT = "litert"
SUFFIX = ".tflite"
SEVERAL = True
SINGLE = "serving_default"  # the signature of a file that has one
PACKAGES = ("litert-torch", "ai-edge-litert", "ai-edge-quantizer", "torch")


def lower(graphs: Sequence[Graph], target: "Target", metadata: Mapping[str, str]) -> Artifact:
    """Lower a model at its keep ratios to a .tflite.

    RuntimeError if the quantiser took other layers, or took them otherwise, than graph.layers says; UserError at
    weights that float16 cannot hold.
    """
    if target.is_native(FORMAT):
        from bigvit_edge.export.backends.litert import native  # here, because it needs our library

        return native.lower(graphs, target, metadata)
    names = [SINGLE] if len(graphs) == 1 else [name_method(graph.keep) for graph in graphs]
    with silenced():
        floats, nodes = lower_float(graphs, names)
        data = narrow_file(quantize_file(floats, graphs), graphs, nodes, floats)
        model = read_model(data)
        store_strings(model, metadata)
        data = write_model(model)
        methods = [describe_method(data, name, graph.keep) for name, graph in zip(names, graphs, strict=True)]
        for number, graph in enumerate(graphs):
            if graph.integers.ops:
                methods[number] = replace(methods[number], conversions=count_conversions(data, number))
    return Artifact(FORMAT, graphs[0].precision, data, tuple(methods), list_versions(PACKAGES))


# The float file, kept as long as its first graph because every precision starts from it: this is where the time goes.
_float_files: WeakKeyDictionary[ExportedProgram, tuple[list[ReferenceType[ExportedProgram]], bytes, list[Nodes]]] = (
    WeakKeyDictionary()
)


def lower_float(graphs: Sequence[Graph], names: Sequence[str]) -> tuple[bytes, list[Nodes]]:
    """Lower the graphs to a float file, a signature for each name.

    With what nodes each signature's tensors come from.
    """
    programs = [graph.exported for graph in graphs]
    known, data, nodes = _float_files.get(programs[0], ([], b"", []))
    if [reference() for reference in known] != programs:
        converted = _convert([simplify(graph.exported, bool(graph.integers.ops)) for graph in graphs], names)
        data, nodes = untag_names(write_batch_products(converted))
        _float_files[programs[0]] = [ref(program) for program in programs], data, nodes
    return data, nodes


def _convert(programs: Sequence[ExportedProgram], names: Sequence[str]) -> bytes:
    """What litert_torch.convert does after a torch.export of its own; with names for the input and the output."""
    ready, signatures = [], []
    for program, name in zip(programs, names, strict=True):
        (image,) = program.example_inputs[0]
        passed = core._run_convert_passes(program)
        call = passed.module_call_graph[0]  # the converter takes the output's name from here
        named = replace(call.signature, out_spec=tree_flatten({"logits": 0})[1])
        passed.module_call_graph[0] = replace(call, signature=named)
        ready.append(passed)
        signatures.append(Signature(name, passed.graph_module, (), {"image": image}))
    return litert_converter.exported_programs_to_flatbuffer(ready, signatures).to_bytes()  # type: ignore[no-any-return]


def load(path: Path, threads: int = 1, method: str | None = None) -> Runner:
    """Open a .tflite.

    It takes [1, 3, S, S] and gives [1, num_classes], float32. method: a signature's name; None: the first in the file.
    UserError if the file is none that LiteRT takes, or has no such signature.

    Only the signature asked for is set up: of a file with several, a copy in memory is cut down to it.
    """
    with silenced():
        try:
            interpreter = Interpreter(model_path=str(path), num_threads=threads)  # and the file is a sound one
            content = path.read_bytes()
            methods = list(list_methods(content))
            name = _choose_method(path, methods, method)
            if holds_program(content):
                _load_core(path)
                session = load_native(path, threads=threads, method=name)
                return Runner(session.run, session.shape, (1, session.classes), read_strings(content))
            words = read_strings(content)
            if len(methods) > 1:
                content = select_method(content, name)
                interpreter = Interpreter(model_content=content, num_threads=threads)
            del content
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError, OSError) as e:
            raise UserError(
                f"{path}: LiteRT cannot load it ({e})", "a .tflite file as exported", "export the model again"
            ) from e
    tensors = interpreter.get_input_details(), interpreter.get_output_details()
    if [[tensor["dtype"] for tensor in side] for side in tensors] != [[np.float32], [np.float32]]:
        met = f"{path}: {len(tensors[0])} inputs and {len(tensors[1])} outputs, or not of float32"
        raise UserError(met, "one image in, logits out", "export the model again")
    (image,), (logits,) = tensors

    def run(images: Array) -> Array:
        interpreter.set_tensor(image["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(logits["index"])  # type: ignore[no-any-return]

    return Runner(run, tuple(map(int, image["shape"])), tuple(map(int, logits["shape"])), words)


def _load_core(path: Path) -> None:
    """UserError, if our core as a delegate cannot be had, of the file that wants it."""
    try:
        load_library()
    except UserError as e:
        raise UserError(f"{path} is run by {LIBRARY}: {e.met}", e.expected, e.do) from e


def _choose_method(path: Path, methods: list[str], method: str | None) -> str:
    if method is None:
        return methods[0] if methods else ""  # others' files may have none, and one graph all the same
    if method not in methods:
        raise UserError(
            f"{path} has no signature {method!r}", f"one of {', '.join(methods)}", suggest(str(method), methods)
        )
    return method
