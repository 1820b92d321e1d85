"""The page of conformance: docs/conformance.md."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from statistics import median

from bigvit_edge import machine, runtime
from bigvit_edge.artifact import list_versions
from tests.conformance.cells import CELLS, IMAGES, SLACK, Result

PACKAGES = ("timm", "transformers", "torchvision", "torch", "executorch", "litert-torch", "coremltools", "onnxruntime")
Results = Mapping[str, Mapping[str, Result]]  # by model, by cell


def write_page(path: Path, results: Results, sources: str) -> None:
    """Write what became of every cell, as Markdown. sources: today's."""
    path.write_text(
        "\n".join([*write_summary(results, sources), "", *write_table(results), "", *write_misses(results)])
    )


def write_summary(results: Results, sources: str) -> list[str]:
    cells = [result for model in results.values() for result in model.values()]
    right = sum(result.right for result in cells)
    older = sum(result.sources != sources for result in cells)
    versions = ", ".join(f"{name} {version}" for name, version in list_versions(PACKAGES).items())
    lines = [
        "# Conformance",
        "",
        "Models of others through every format, by `make conformance`: ViTs, hybrids and convolutional networks of",
        "timm, transformers and torchvision, cut to two blocks of a kind, weights drawn as if trained (LayerScale, the",
        "gains and statistics of BatchNorm not trivial). A cell is right if the file is made, opens in its runtime",
        f"and answers {IMAGES} pictures within the limits of target host for weights that were not trained",
        "([parity.md](parity.md)). Marked ≈ are int8 files that miss those because the drawn weights do not bear the",
        f"rounding: they are no further from PyTorch than {SLACK:g} times what PyTorch's own emulation is. What falls",
        "back is told, not judged.",
        "",
        f"**{right} of {len(cells)} cells right ({right / max(len(cells), 1):.1%})**, {len(results)} models,",
        f"{date.today()}, {machine.describe(runtime.probe())}; {versions}.",
    ]
    if older:
        lines.append(f"{older} of the cells were tried with earlier sources than today's ({sources}).")
    return lines


def write_table(results: Results) -> list[str]:
    """Each cell: right or not, pieces of the delegate, share of the multiply-accumulates outside it."""
    head = ["model", *CELLS]
    lines = [
        "A cell says how many pieces the delegate got, and which share of the multiply-accumulates stayed outside it,",
        f"where any did; of int8 also which share is in int8, {_find_median(results)} in the median. **–**: not right,",
        "see below. Core ML's Neural Engine has no fp32; ONNX has no delegate.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    for name, model in results.items():
        cells = [write_cell(model[cell]) if cell in model else "" for cell in CELLS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _find_median(results: Results) -> str:
    found = [r.covered for model in results.values() for r in model.values() if r.covered is not None]
    return f"{median(found):.1%}" if found else "unknown"


def write_cell(result: Result) -> str:
    if not result.right:
        return "**–**"
    mark = "≈ " if result.emulated is not None else ""
    outside = f"; {result.outside:.1%}" if result.outside and result.outside >= 0.0005 else ""
    covered = "" if result.covered is None else f"; int8 {result.covered:.0%}"
    return mark + (str(result.delegates) if result.delegates else "right") + covered + outside


def write_misses(results: Results) -> list[str]:
    """Why cells are not right, or only as the emulation is, and which ops cut models into pieces."""
    cells = [(name, result) for name, model in results.items() for result in model.values()]
    reasons = [f"- {name}, {cell.cell}: {cell.reason}" for name, cell in cells if not cell.right]
    cuts = [
        f"- {name}, {cell.cell}: {cell.delegates} pieces; {cell.ops}"
        for name, cell in cells
        if cell.right and (cell.delegates or 0) > 1 and cell.cell.endswith("fp32")
    ]
    close = [
        f"- {name}, {cell.cell}: {cell.reason}; centred cosine of the emulation {cell.emulated:.5f}"
        for name, cell in cells
        if cell.emulated is not None
    ]
    return [
        *("## Not right", "", *(reasons or ["None."]), ""),
        *("## Right as PyTorch's emulation is", "", *(close or ["None."]), ""),
        *("## What cuts models into pieces, in fp32", "", *cuts),
    ]
