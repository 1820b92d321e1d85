"""The command line's verbs on devices, as cli.py has the others: what is there, how fast it is, and why."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bigvit_edge.exits import explained

AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


def print_schema(asked: bool) -> None:
    """Print the JSON schema of a result file, if asked to.

    It exits then.
    """
    if asked:
        from bigvit_edge.results import find_schema

        print(json.dumps(find_schema(), indent=2))
        raise typer.Exit


def bench(
    files: Annotated[list[Path], typer.Argument(help="bundles or model files")],
    device: Annotated[str, typer.Option(help="local, adb:SERIAL, ssh:USER@HOST[:PORT] or null")] = "local",
    rounds: Annotated[int | None, typer.Option(help="turns of each file, 0.1 s or longer each; 30")] = None,
    minutes: Annotated[
        float, typer.Option(help="measure so long instead, and tell the first minute from the last")
    ] = 0,
    clusters: Annotated[
        list[str] | None,
        typer.Option(
            help="big, middle, little, 'big,little', all, auto, or each; several by repeating it, measured side by side"
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="1 if not given; with --clusters, as many as there are cores in each")
    ] = None,
    keep: Annotated[float | None, typer.Option(help="only entry points of that keep ratio")] = None,
    fps: Annotated[float, typer.Option(help="images at that pace; 0: one after the other")] = 0,
    cool: Annotated[float | None, typer.Option(help="wait before each round until the CPU is so cool, in °C")] = None,
    images: Annotated[
        Path | None, typer.Option(help="pictures for top-1: sub-folders or labels.csv name their classes")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="file to make; one in results/ if not given")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on where the same command was cut off")] = False,
    energy: Annotated[bool, typer.Option(help="measure it, where the device has a sensor")] = True,
    keep_files: Annotated[bool, typer.Option("--keep-files", help="leave our files on the device")] = False,
    by_app: Annotated[
        bool, typer.Option("--app", help="by the benchmark app on a phone, which is installed for it and goes again")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", is_eager=True, callback=print_schema, help="print a result file's JSON schema")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure files here, on a board or on a phone.

    All are timed in turn. Each row has a verdict: valid, noisy, throttled, quota, not pinned, failed.
    """
    from bigvit_edge.bench.command import make_plan, run_bench
    from bigvit_edge.tables import print_notes

    plan = make_plan(
        rounds=rounds, minutes=minutes, fps=fps, cool_c=cool, images=images, clusters=clusters or (), threads=threads,
        energy=energy, keep_files=keep_files,
    )  # fmt: skip
    print_notes(plan.notes)

    from bigvit_edge.bench import pages

    with pages.watching() as progress:
        if by_app:
            from bigvit_edge.app.phone import bench_by_app

            result, path, notes = bench_by_app(files, device, plan, output, resume, keep, progress)
            print_notes(notes)
        else:
            result, path = run_bench(files, device, plan, output, resume, keep, progress)
    if as_json:
        print(json.dumps(asdict(result), indent=2))
    else:
        pages.print_result(result, path)


def profile(
    file: Annotated[Path, typer.Argument(help="a model file: .bve, .onnx, .tflite or .pte, of a bundle or alone")],
    device: Annotated[str, typer.Option(help="local; of a .bve also adb:SERIAL or ssh:USER@HOST[:PORT]")] = "local",
    keep: Annotated[
        float | None, typer.Option(help="which of the file's keep ratios; the largest if not given")
    ] = None,
    threads: Annotated[int, typer.Option(help="at most the cores there are")] = 1,
    image: Annotated[Path | None, typer.Option(help="a picture; the demo's own, or noise, if not given")] = None,
    runs: Annotated[int, typer.Option(help="runs without tracing; 20 more are traced")] = 100,
    html: Annotated[Path | None, typer.Option(help="page to write: one file without network")] = None,
    trace: Annotated[Path | None, typer.Option(help="timeline to write: JSON that Perfetto opens")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell where a file's time goes, by layer and by op.

    Each format in its own runtime. The latency is that of runs without tracing.
    """
    from bigvit_edge.profile.command import print_profile, run_profile, write_json

    found = run_profile(file, device, keep, threads, image, runs, html, trace)
    if as_json:
        print(write_json(found))
    else:
        print_profile(found, (html, trace))


def compare(
    before: Annotated[Path, typer.Argument(help="a result of `bigvit-edge bench`")],
    after: Annotated[Path, typer.Argument(help="another, of the same files on the same device")],
    as_json: AsJson = False,
) -> None:
    """Tell whether two results differ, by how much, with an interval.

    Exits with 1 where nothing in them is comparable.
    """
    from bigvit_edge.bench import comparison, pages
    from bigvit_edge.results import read_result

    compared, alone = comparison.compare(read_result(before), read_result(after))
    if as_json:
        print(json.dumps([pages.summarize(pair) for pair in compared], indent=2))
    else:
        pages.print_compared(compared, alone)
    if all(pair.obstacles for pair in compared):
        raise typer.Exit(1)


def sweep(
    file: Annotated[Path, typer.Argument(help="a TOML file of lists; docs/sweep.md has an example")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="its folder; one of the file's name in sweeps/ if not given")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="try again what failed")] = False,
    ray: Annotated[str | None, typer.Option(help="HOST:PORT of a Ray cluster that does the jobs, or auto")] = None,
    as_json: AsJson = False,
) -> None:
    """Export and measure models x precisions x formats x devices.

    What is done is not done again: after an end of any kind the same command goes on. Written are a table, a CSV and a
    page with the Pareto front. Exits with 1 where a job failed.
    """
    from bigvit_edge.extras import require

    require()

    from bigvit_edge.sweep import terminal
    from bigvit_edge.sweep.command import run_sweep

    with terminal.watching() as progress:
        swept = run_sweep(file, output, retry=retry, address=ray, progress=progress)
    if as_json:
        print(json.dumps(terminal.summarize(swept), indent=2))
    else:
        terminal.print_swept(swept)
    if swept.failures:
        raise typer.Exit(1)


def devices(
    names: Annotated[
        list[str] | None, typer.Argument(help="more to look for: ssh:USER@HOST[:PORT], or an alias as ssh:HOST")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what can be measured on: this machine, phones, boards.

    Those that adb knows and those named here are asked what they are. Exits with 2 if one that was named does not
    answer.
    """
    from bigvit_edge.devices.listing import READY, TITLE, explain, list_devices, tabulate

    found = list_devices(names or ())
    if as_json:
        print(json.dumps([asdict(row) for row in found], indent=2))
    else:
        from bigvit_edge import tables

        tables.print_rows(TITLE, tabulate(found))
        tables.print_notes(explain(found))
    if any(row.state != READY for row in found if row.name in (names or ())):
        raise typer.Exit(2)


def add_verbs(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for verb in (devices, bench, profile, compare, sweep):
        app.command()(explained(verb))
