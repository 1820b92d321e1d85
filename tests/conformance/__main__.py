"""Conformance: every model x format x precision, and a page that says what became of each. `make conformance`.

    python -m tests.conformance [--models NAME,...] [--retry] [--fresh] [--scan]

Goes on where it was stopped: results lie in build/conformance, one file a model. --retry tries again what is not right;
--fresh, what was made by other sources than today's; --scan compares our rewrites alone with PyTorch.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from bigvit_edge.errors import suggest
from tests.conformance.cells import CELLS, Result
from tests.conformance.models import MODELS
from tests.conformance.page import write_page
from tests.conformance.scan import describe, scan_models

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "build/conformance"
PAGE = ROOT / "docs/conformance.md"
MINUTES = 15  # for a process


def hash_sources() -> str:
    """Of what decides a result: twelve digits of sha256."""
    digest = hashlib.sha256()
    for folder in ("bigvit_edge", "export", "runtime", "tests/conformance"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def read_results(name: str) -> dict[str, Result]:
    """The last result of each cell of a model."""
    path = RESULTS / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    results = [Result(**json.loads(line)) for line in lines]
    return {result.cell: result for result in results}


def add_result(name: str, result: Result) -> None:
    with (RESULTS / f"{name}.jsonl").open("a") as f:
        print(json.dumps(asdict(result)), file=f)


def try_cells(name: str, cells: list[str], sources: str) -> str:
    """In processes of their own: what ends one is the fault of the first cell that it left without a result."""
    part = RESULTS / f"{name}.part"
    while cells:
        part.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.conformance.cells", f"tests.conformance.models:{name}", str(part)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        try:
            run = subprocess.run(
                [*command, *cells], cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace",
                timeout=60 * MINUTES, check=False,
            )  # fmt: skip
            ended = f"the process ended with {run.returncode}: {' '.join(run.stderr.split())[-200:]}"
        except subprocess.TimeoutExpired:
            ended = f"not done within {MINUTES} minutes"
        lines = part.read_text().splitlines() if part.exists() else []
        found = [Result(**json.loads(line)) for line in lines]
        done = {result.cell for result in found}
        cells = [cell for cell in cells if cell not in done]
        if cells:
            found.append(Result(cells.pop(0), False, ended))
        for result in found:
            add_result(name, replace(result, sources=sources))
    part.unlink(missing_ok=True)
    return name


def list_work(names: list[str], sources: str, retry: bool, fresh: bool) -> Iterator[tuple[str, list[str]]]:
    """The models with cells to try, and which."""
    for name in names:
        known = read_results(name)
        cells = [
            cell
            for cell in CELLS
            if (result := known.get(cell)) is None
            or (retry and not result.right)
            or (fresh and result.sources != sources)
        ]
        if cells:
            yield name, cells


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__.splitlines()[0])
    parser.add_argument("--models", help="some of them, with commas between")
    parser.add_argument("--retry", action="store_true", help="try again what is not right")
    parser.add_argument("--fresh", action="store_true", help="try again what other sources made")
    parser.add_argument("--scan", action="store_true", help="compare our rewrites alone with PyTorch")
    given = parser.parse_args()
    names = given.models.split(",") if given.models else list(MODELS)
    for name in names:
        if name not in MODELS:
            parser.error(f"unknown model {name!r} {suggest(name, MODELS)}")
    if given.scan:
        wrong = 0
        for name, found in scan_models(names):
            print(describe(name, found), flush=True)
            wrong += not found.right
        sys.exit(f"{wrong} of {len(names)} models differ" if wrong else 0)
    RESULTS.mkdir(parents=True, exist_ok=True)
    sources = hash_sources()
    work = list(list_work(names, sources, given.retry, given.fresh))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, name in enumerate(pool.map(lambda item: try_cells(*item, sources), work), 1):
            right = sum(result.right for result in read_results(name).values())
            print(f"{done} of {len(work)}: {name}, {right} of {len(CELLS)} cells right", flush=True)
    results = {name: found for name in MODELS if (found := read_results(name))}
    write_page(PAGE, results, sources)
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
