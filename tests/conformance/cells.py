"""One model through every format and precision, as an export does it: `python -m tests.conformance.cells NAME RESULTS
CELL...`, a process of its own, since a framework may end it."""

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bigvit_edge.artifact import Artifact, write_data
from bigvit_edge.export.convert import Subject, capture, load_backend, lower, place, quantize, rewrite
from bigvit_edge.export.coverage import add_coverage, share_covered
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.parity import judge, name_standard
from bigvit_edge.export.quantization import insert_quantization
from bigvit_edge.export.references import Reference, draw_calibration, make_references, measure
from bigvit_edge.measures import Parity
from bigvit_edge.models.load import load
from bigvit_edge.target import Target, load_target, override

FORMATS = ("executorch", "litert", "coreml", "onnx")
PRECISIONS = ("fp32", "int8")
CELLS = tuple(f"{name}/{precision}" for precision in PRECISIONS for name in FORMATS)
IMAGES = 16
SLACK = 2.0  # of the distance from PyTorch's logits that rounding to integers makes of weights drawn so


@dataclass(frozen=True)
class Result:
    """What became of a cell, FORMAT/PRECISION. right: the file was made, opened in its runtime and answered within the
    limits; reason: why not. delegates: pieces that the delegate got; outside: share of the multiply-accumulates that it
    did not; ops: those ops, by name and count; covered: share in int8, of an int8 file; cosine: of the logits, centred
    over the images; emulated: the same of PyTorch's emulation of the precision, where the file is past the limits but
    no further off than SLACK of that.
    """

    cell: str
    right: bool
    reason: str = ""
    delegates: int | None = None
    outside: float | None = None
    ops: str = ""
    cosine: float | None = None
    emulated: float | None = None
    covered: float | None = None
    seconds: float = 0.0
    sources: str = ""


def try_model(source: str, cells: Sequence[str]) -> Iterator[Result]:
    """Each cell's result, as it comes. What all share, the graph and PyTorch's answers, is made once."""
    target = override(load_target("host"), ["deployment=iOS18", f"formats={','.join(FORMATS)}"])
    try:
        model = load(source)
        subject = Subject(model.module, model.image_size, (None,), draw_calibration(model), True, {})
        reference = make_references(model, (None,), IMAGES)[None]
        graph = rewrite(capture(model.module, model.image_size))
    except Exception as e:
        yield from (Result(cell, False, explain(e)) for cell in cells)
        return
    for precision in PRECISIONS:
        mine = [cell for cell in cells if cell.endswith(f"/{precision}")]
        try:
            graphs = (
                place(quantize([graph], precision, target, subject, lambda *_: None), target, subject) if mine else {}
            )
        except Exception as e:
            yield from (Result(cell, False, explain(e)) for cell in mine)
            continue
        for cell in mine:
            start = time.perf_counter()
            try:
                name = cell.partition("/")[0]
                emulated = emulate(graphs[name][0], reference) if precision == "int8" else None
                artifact = add_coverage(lower(graphs[name], name, target, {}), graphs[name], graphs[name][0].layers)
                found = measure_cell(cell, artifact, target, reference, emulated)
            except Exception as e:
                found = Result(cell, False, explain(e))
            yield Result(**{**asdict(found), "seconds": round(time.perf_counter() - start, 1)})


def emulate(graph: Graph, reference: Reference) -> Parity:
    """What rounding to the graph's integers makes of the answers, by PyTorch."""
    run = insert_quantization(graph).module(check_guards=False)
    with torch.no_grad():
        return measure(lambda images: run(torch.from_numpy(images)).numpy(), reference).parity


def measure_cell(
    cell: str, artifact: Artifact, target: Target, reference: Reference, emulated: Parity | None
) -> Result:
    """The file, written, opened in its runtime, and held against PyTorch."""
    backend = load_backend(artifact.format)
    (method,) = artifact.methods
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{backend.SUFFIX}"
        write_data(artifact.data, path)
        parity = measure(backend.load(path, 1, method.name), reference).parity
    faults = judge(parity, name_standard(artifact.precision, method), target.limits, trained=False)
    as_emulated = bool(faults and emulated and is_near(parity, emulated))
    ops = Counter(leftover.op for leftover in method.leftovers)
    return Result(
        cell,
        not faults or as_emulated,
        "; ".join(faults),
        method.delegates,
        sum(leftover.mac_share for leftover in method.leftovers),
        ", ".join(f"{count} {op}" for op, count in ops.most_common()),
        parity.centred_cosine,
        emulated.centred_cosine if emulated and as_emulated else None,
        share_covered(method.coverage, "int8")[0] if artifact.precision == "int8" else None,
    )


def is_near(parity: Parity, emulated: Parity) -> bool:
    """Whether a file is no further from PyTorch than SLACK of what the emulation is, in the smallest cosine and the
    centred one."""
    pairs = (parity.cosine_min, emulated.cosine_min), (parity.centred_cosine, emulated.centred_cosine)
    return all(a is not None and b is not None and 1 - a <= SLACK * (1 - b) for a, b in pairs)


def explain(e: Exception) -> str:
    return f"{type(e).__name__}: {' '.join(str(e).split())}"[:600]


if __name__ == "__main__":
    name, results, *cells = sys.argv[1:]
    with Path(results).open("a") as f:
        for result in try_model(name, cells):
            print(json.dumps(asdict(result)), file=f, flush=True)
