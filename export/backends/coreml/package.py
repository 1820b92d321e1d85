"""The files of an .mlpackage: saved, joined into one with several entry points, and made the same on every day."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bigvit_edge.artifact import write_data
from bigvit_edge.console import silenced
from bigvit_edge.runtime.mil.package import MANIFEST, read_folder

with silenced():
    import coremltools as ct
    from coremltools.proto import Model_pb2

ENTRY = "main"  # the function of a package that has one
MODEL, WEIGHTS = "com.apple.CoreML/model.mlmodel", "com.apple.CoreML/weights"


def save_model(model: Any) -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.mlpackage"
        model.save(str(path))
        return read_folder(path)


def join_packages(names: Sequence[str], packages: Sequence[Mapping[str, bytes]]) -> dict[str, bytes]:
    """Join packages into one with a function from each.

    Weights that are equal are kept once.
    """
    with TemporaryDirectory() as folder:
        several = ct.utils.MultiFunctionDescriptor()
        for name, files in zip(names, packages, strict=True):
            path = Path(folder) / f"{name}.mlpackage"
            write_data(dict(files), path)
            several.add_function(str(path), ENTRY, name)
        several.default_function_name = names[0]
        path = Path(folder) / "joined.mlpackage"
        ct.utils.save_multifunction(several, str(path))
        return read_folder(path)


def finish_package(files: Mapping[str, bytes], metadata: Mapping[str, str]) -> dict[str, bytes]:
    """Make equal bytes of equal inputs, and add our metadata.

    They are equal whatever the day and however the maps were laid out.
    """
    model = Model_pb2.Model.FromString(files[f"Data/{MODEL}"])
    written = model.description.metadata.userDefined
    written.pop("com.github.apple.coremltools.conversion_date", None)
    written.update(metadata)
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {
            "model": _itemize("model.mlmodel", "CoreML Model Specification", MODEL),
            "weights": _itemize("weights", "CoreML Model Weights", WEIGHTS),
        },
        "rootModelIdentifier": "model",
    }
    weights = {path: content for path, content in files.items() if path.startswith(f"Data/{WEIGHTS}/")}
    return {
        MANIFEST: json.dumps(manifest, indent=4).encode(),
        f"Data/{MODEL}": model.SerializeToString(deterministic=True),
        **weights,
    }


def compact_functions(files: Mapping[str, bytes]) -> tuple[dict[str, bytes], dict[str, dict[str, str]]]:
    """Compact a package's names, and say constants once a function.

    Short names, and axes, shapes, flags and the like once a function and not once an op: they are most of what a
    further entry point adds. Also returns the new name of each value, by function.
    """
    model = Model_pb2.Model.FromString(files[f"Data/{MODEL}"])
    renamed = {
        name: _compact_block(function.block_specializations[function.opset])
        for name, function in model.mlProgram.functions.items()
    }
    return {**files, f"Data/{MODEL}": model.SerializeToString(deterministic=True)}, renamed


def _compact_block(block: Any) -> dict[str, str]:
    names = {name: name for name in block.outputs}  # old -> new
    shared: dict[bytes, str] = {}  # a value -> the constant that has it
    ops = []
    for op in block.operations:
        for argument in op.inputs.values():
            for binding in argument.arguments:
                if binding.WhichOneof("binding") == "name":
                    binding.name = names.get(binding.name, binding.name)  # an input of the function keeps its name
        if op.type == "const" and op.attributes["val"].WhichOneof("value") == "immediateValue":
            content = op.attributes["val"].SerializeToString(deterministic=True)
            if content in shared:
                names[op.outputs[0].name] = shared[content]
                continue
            shared[content] = f"v{len(names)}"
        for output in op.outputs:
            output.name = names.setdefault(output.name, f"v{len(names)}")
        op.attributes["name"].immediateValue.tensor.strings.values[0] = op.outputs[0].name
        ops.append(type(op).FromString(op.SerializeToString()))
    del block.operations[:]
    block.operations.extend(ops)
    return names


def _itemize(name: str, description: str, path: str) -> dict[str, str]:
    return {"author": "com.apple.CoreML", "description": description, "name": name, "path": path}
