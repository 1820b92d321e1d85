"""The Core ML delegate: a .pte for Apple's systems whose whole graph is one Core ML package.

coremltools reads the quantised weights and the static quantisation that are written into the graph; Core ML quantises
no activations at run time, so int8 and int4 are the weights' alone, and arithmetic is in float16. The runtime here has
no such delegate: the package is taken out of the file and evaluated by runtime/mil.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from uuid import UUID

import torch
from torch.export import ExportedProgram

from bigvit_edge.artifact import list_data
from bigvit_edge.console import silenced
from bigvit_edge.errors import UserError
from bigvit_edge.export.graph import Graph, insert
from bigvit_edge.export.quantization import bound_steps, insert_quantization, ops

if TYPE_CHECKING:
    from bigvit_edge.target import Target

with silenced():
    import coremltools as ct  # defines torch.ops.torchao
    from coremltools.proto import Model_pb2
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.executorchcoreml import unflatten_directory_contents
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner
    from executorch.exir import EdgeCompileConfig, EdgeProgramManager, to_edge_transform_and_lower

BACKEND = "CoreMLBackend"
REFERENCE = b"CMJR"  # before the JSON that stands in a blob's place
METADATA, MANIFEST = "metadata.json", "model.mlpackage/Manifest.json"
MODEL = "model.mlpackage/Data/com.apple.CoreML/model.mlmodel"
DEBUG = ("debug_info.json", "executorch_debug_handle_mapping.json")  # for Apple's profiler; as large as the program


def lower_programs(graphs: Mapping[str, Graph], target: "Target", words: Mapping[str, str]) -> EdgeProgramManager:
    """Lower the graphs by method name, delegated to Core ML.

    words: methods that return a string. UserError if target.deployment is too old for what is asked.
    """
    _check_deployment(list(graphs.values()), target)
    half = any(graph.precision != "fp32" for graph in graphs.values())
    specifications = CoreMLBackend.generate_compile_specs(
        compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
        minimum_deployment_target=ct.target[target.deployment],
    )
    programs = {name: write_program(graph) for name, graph in graphs.items()}
    partitioners = {name: [CoreMLPartitioner(compile_specs=specifications)] for name in graphs}
    edge = to_edge_transform_and_lower(programs, partitioner=partitioners)
    lowered = {name: edge.exported_program(name) for name in graphs}
    _settle([module for program in lowered.values() for module in _list_delegates(program)])
    # a manager gathers the named data when it is made
    return EdgeProgramManager(lowered, dict(words), EdgeCompileConfig(_check_ir_validity=False))


def write_program(graph: Graph) -> ExportedProgram:
    """Write the graph in its precision, in ops that coremltools knows."""
    program = insert_quantization(bound_steps(graph), rows=False)
    for node in program.graph.find_nodes(op="call_function", target=ops.dequantize_per_channel_group.default):
        integers, scale, zero, low, high, dtype, group, _ = node.args
        arguments = (integers, [1, group], scale, zero, dtype, low, high)
        node.replace_all_uses_with(insert(node, torch.ops.torchao.dequantize_affine.default, *arguments))
        program.graph.erase_node(node)
    program.graph_module.recompile()
    return program


def _check_deployment(graphs: Sequence[Graph], target: "Target") -> None:
    layers = {how for graph in graphs for how in graph.layers.values()}
    for needs, asked, what in (
        ("iOS18", len(graphs) > 1, "several keep ratios in one Core ML delegate"),
        ("iOS18", "int4" in layers, "int4 in a Core ML delegate"),
        ("iOS17", "int8-static" in layers, "int8-static in a Core ML delegate"),
    ):
        if asked and target.deployment < needs:
            raise UserError(f"{what} with deployment={target.deployment}", f"{needs}", f"--set deployment={needs}")


# ---- equal bytes for equal inputs ------------------------------------------------------------------------------------


def _list_delegates(program: ExportedProgram) -> Iterator[Any]:
    for node in program.graph.find_nodes(op="get_attr"):
        yield getattr(program.graph_module, str(node.target))


def _settle(modules: Sequence[Any]) -> None:
    """Take the day and the random identifiers out of the blobs. A blob stands in its module, or once for all methods in
    the named data, under a key that each module repeats."""
    keys: dict[str, str] = {}
    for module in modules:
        if not module._processed_bytes.startswith(REFERENCE):
            module._processed_bytes = settle_blob(module._processed_bytes)
            continue
        reference = json.loads(module._processed_bytes.removeprefix(REFERENCE))
        store, key = module._named_data_store_output, reference["key"]
        if key in store.pte_data:  # methods may share the store too
            entry = store.pte_data.pop(key)
            store.buffers[entry.buffer_index] = blob = settle_blob(store.buffers[entry.buffer_index])
            keys[key] = f"coreml_{_identify(blob)}"
            store.pte_data[keys[key]] = entry
        reference["key"] = keys[key]
        module._processed_bytes = REFERENCE + json.dumps(reference).encode()


def settle_blob(blob: bytes) -> bytes:
    """Make a package's identifiers from its content.

    It is otherwise the same, but without what only a profiler reads.
    """
    with TemporaryDirectory() as folder:
        unflatten_directory_contents(blob, folder)
        (root,) = Path(folder).iterdir()
        files = {p.relative_to(root).as_posix(): p.read_bytes() for p in list_data(root) if p.name not in DEBUG}
    model = Model_pb2.Model.FromString(files[MODEL])
    model.description.metadata.userDefined.pop("com.github.apple.coremltools.conversion_date", None)
    files[MODEL] = model.SerializeToString(deterministic=True)
    manifest = json.loads(files[MANIFEST])
    items = {_identify(item["path"].encode()): item for item in manifest["itemInfoEntries"].values()}
    (manifest["rootModelIdentifier"],) = (key for key, item in items.items() if item["name"] == "model.mlmodel")
    files[MANIFEST] = json.dumps({**manifest, "itemInfoEntries": items}, indent=4, sort_keys=True).encode()
    content = b"".join(files[path] for path in sorted(files) if path != METADATA)
    metadata = {**json.loads(files[METADATA]), "identifier": f"executorch_{_identify(content)}"}
    files[METADATA] = json.dumps(metadata).encode()  # the identifier is the device's key to what it has compiled
    return pack_blob(files, root.name)


def _identify(content: bytes) -> str:
    return str(UUID(bytes=sha256(content).digest()[:16])).upper()


def pack_blob(files: Mapping[str, bytes], root: str) -> bytes:
    """Pack files by relative path as one blob.

    It is their contents one after another, then the index as JSON written backwards. Source: executorch's inmemoryfs,
    which takes them in the order that the file system happens to have.
    """
    folders: dict[str, Any] = {}
    for path, content in files.items():
        *parents, name = path.split("/")
        here = folders
        for parent in parents:
            here = here.setdefault(parent, {})
        here[name] = content
    nodes: list[dict[str, Any]] = []
    contents: list[bytes] = []

    def add(name: str, entry: Any) -> int:
        children, region = {}, {"offset": 0, "size": 0}
        if isinstance(entry, bytes):
            region = {"offset": sum(map(len, contents)), "size": len(entry)}
            contents.append(entry)
        else:
            children = {child: add(child, entry[child]) for child in sorted(entry)}
        kind = 0 if isinstance(entry, bytes) else 1
        nodes.append({"name": name, "kind": kind, "dataRegion": region, "children": children})
        return len(nodes) - 1

    add(root, folders)
    return b"".join(contents) + json.dumps({"nodes": nodes}, separators=(",", ":")).encode()[::-1]
