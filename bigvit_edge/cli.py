"""The command line: one function a verb, no logic. Heavy imports stand inside the verbs, so that --help is instant."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bigvit_edge import cli_app
from bigvit_edge.cli_devices import AsJson, add_verbs
from bigvit_edge.exits import explained, run_program

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

MODEL = (
    "a name from `bigvit-edge models`, a checkpoint, timm:NAME, hf:FOLDER_OR_NAME (Hugging Face), or "
    "package.module:build (your own code)"
)
Weights = Annotated[
    str | None, typer.Option(help="a checkpoint (.safetensors, PyTorch, .npz), or 'pretrained' for timm:NAME")
]
WeightsKey = Annotated[
    str | None, typer.Option(help="where in the checkpoint they are, as state_dict or teacher.backbone")
]
Heads = Annotated[
    int | None, typer.Option(help="of attention (the P-blocks'), which a checkpoint does not show; if not the usual")
]
Images = Annotated[
    Path | None,
    typer.Option(help="your pictures to compare on: sub-folders or labels.csv (file,label) name their classes"),
]


@app.callback()
def main_help() -> None:
    """Export big.LITTLE Vision Transformers to phones and boards, verified and measured.

    Each file's answers are compared with PyTorch's.

    Exit codes: 0 good; 1 a file misses the target's limits, or too much falls back; 2 the input cannot work; 3 a fault
    of this program's, which names a file with the details; 129, 130, 143 interrupted by SIGHUP, Ctrl-C, SIGTERM; 141
    who read the output went away.
    """


@app.command()
@explained
def export(
    model: Annotated[str, typer.Argument(help=MODEL)] = "blvit_demo",
    target: Annotated[
        str | None, typer.Option(help="a name from `bigvit-edge targets`; android if not given, host with --format")
    ] = None,
    formats: Annotated[
        str | None, typer.Option("--format", help="one or several as bve,onnx, instead of the target's")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to make")] = Path("dist/bundle"),
    keep: Annotated[
        str | None, typer.Option(help="share of the tokens for the big blocks: 0.5, or several as 0.25,0.5,1.0")
    ] = None,
    weights: Weights = None,
    weights_key: WeightsKey = None,
    image_size: Annotated[int | None, typer.Option(help="pixels of a side, if not the model's own")] = None,
    num_classes: Annotated[int | None, typer.Option(help="of the head, if not the model's own")] = None,
    heads: Heads = None,
    calibration: Annotated[
        Path | None, typer.Option(help="folder of pictures for int8-static and mixed, instead of the demo's")
    ] = None,
    images: Images = None,
    input_kind: Annotated[
        str | None,
        typer.Option(
            "--input", help="what files take: tensor (normalised floats) or image (uint8 pixels); the preset's"
        ),
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value, changes the target's preset")] = None,
    max_fallback: Annotated[
        str | None,
        typer.Option(help="share of the arithmetic that may fall back, such as 5%; the preset's if not given"),
    ] = None,
    allow_fallback: Annotated[bool, typer.Option("--allow-fallback", help="go on where more falls back")] = False,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="keep a file whose answers cannot be evaluated here, marked so")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="replace a bundle that is there")] = False,
) -> None:
    """Convert MODEL for a target, check each file, write a bundle.

    Each file's answers are compared with PyTorch's.
    """
    from bigvit_edge.extras import require
    from bigvit_edge.manifest import check_output
    from bigvit_edge.target import load_target, override
    from bigvit_edge.words import parse_keeps, parse_share

    folder = check_output(output, force)  # a wrong path shows before the heavy imports

    share = [] if max_fallback is None else [f"limits.max_fallback={parse_share(max_fallback)}"]
    named = [] if formats is None else [f"formats={formats}"]
    named += [] if input_kind is None else [f"input={input_kind}"]
    preset = target or ("host" if formats else "android")
    chosen = override(load_target(preset), [*(settings or []), *share, *named])
    chosen.list_cells()
    keeps = parse_keeps(keep)
    require(*chosen.formats, *([] if images else ["demo"]))  # whose pictures are compared on instead

    from bigvit_edge import report
    from bigvit_edge.export.bundle import Source, export_bundle

    source = Source(model, weights, image_size, num_classes, calibration, weights_key, heads, images)
    manifest, loaded = export_bundle(
        source, chosen, folder, keeps=keeps, force=force, allow_fallback=allow_fallback, unchecked=unchecked,
        listener=report.LISTENER,
    )  # fmt: skip
    report.finish_export(manifest, loaded, folder, output)


@app.command()
@explained
def check(
    folder: Annotated[Path, typer.Argument(help="a bundle")],
    weights: Weights = None,
    weights_key: WeightsKey = None,
    heads: Heads = None,
    model: Annotated[
        str | None, typer.Option(help="as it was named to the export; needed only for package.module:build")
    ] = None,
    images: Images = None,
    as_json: AsJson = False,
) -> None:
    """Verify a bundle: hashes, and each file's answers against PyTorch's.

    Each file is reloaded in its runtime. Exits with 1 past the limits.
    """
    from bigvit_edge.extras import require
    from bigvit_edge.manifest import read_manifest

    manifest = read_manifest(folder)  # a wrong path shows before the heavy imports
    require(*(entry.format for entry in manifest.artifacts), *([] if images else ["demo"]))

    from bigvit_edge import report, tables
    from bigvit_edge.export.check import check_bundle

    files = check_bundle(
        folder, weights, model, weights_key=weights_key, heads=heads, images=images, watch=tables.watch
    )
    if as_json:
        print(json.dumps([asdict(file) for file in files], indent=2))
    else:
        report.print_checks(files)
    if any(file.faults for file in files):
        raise typer.Exit(1)


@app.command()
@explained
def run(
    file: Annotated[Path, typer.Argument(help="a model file of a bundle")],
    image: Annotated[Path, typer.Argument(help="a picture")],
    keep: Annotated[
        float | None, typer.Option(help="which of the file's keep ratios; the largest if not given")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Classify a picture: the five most probable classes."""
    from bigvit_edge import tables
    from bigvit_edge.export.inference import classify

    answer = classify(file, image, keep)
    tables.print_notes(answer.notes)
    if as_json:
        print(json.dumps([asdict(guess) for guess in answer.guesses], indent=2))
    else:
        tables.print_rows(("class", "probability"), (guess.as_cells() for guess in answer.guesses))


add_verbs(app)
app.add_typer(cli_app.app, name="app")


@app.command()
@explained
def runtime_libs(
    abi: Annotated[
        str | None, typer.Option(help="arm64-v8a (Android, needs its NDK), aarch64-linux or x86_64-linux")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to make, of --abi")] = Path(
        "dist/runtime-libs"
    ),
    aar: Annotated[
        bool, typer.Option("--aar", help="also bigvit-edge.aar, for Kotlin and Java on Android; needs a JDK")
    ] = False,
    swift: Annotated[
        Path | None,
        typer.Option(help="folder to make: a Swift package for iOS and macOS, with the core's sources"),
    ] = None,
) -> None:
    """Build the native core for C++ programs, or as a Swift package.

    Of --abi: libraries, the doors into ExecuTorch and LiteRT, headers, find_package(bigvit_edge) and examples.
    """
    from bigvit_edge import tables
    from bigvit_edge.errors import UserError
    from bigvit_edge.runtime.archives import build_archive
    from bigvit_edge.runtime.libraries import build_libraries
    from bigvit_edge.runtime.swift_package import write_swift_package

    if abi is None and (swift is None or aar):
        raise UserError("no --abi", "what to build for, or --swift alone", "bigvit-edge runtime-libs --help")
    if abi is not None:
        for library in (build_archive if aar else build_libraries)(abi, output, tables.print_step):
            print(f"{library}  {library.stat().st_size:,} bytes")
    if swift is not None:
        print(write_swift_package(swift, "--swift"))


@app.command()
@explained
def targets(as_json: AsJson = False) -> None:
    """List the target presets."""
    from bigvit_edge.target import list_targets, load_target

    presets = [load_target(name) for name in list_targets()]
    if as_json:
        print(json.dumps([asdict(preset) for preset in presets], indent=2))
    else:
        width = max(len(preset.name) for preset in presets)
        for preset in presets:
            print(f"{preset.name:{width}}  {preset.summary}")


@app.command()
@explained
def models(as_json: AsJson = False) -> None:
    """List the models, with parameters and multiply-accumulates."""
    from bigvit_edge.models.zoo import list_models

    rows = list_models()
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        for row in rows:
            print(row)


@app.command()
@explained
def train(
    recipe: Annotated[str, typer.Option(help="'demo': the model that ships with the package")] = "demo",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="folder for checkpoints and weights; resumed if it is there")
    ] = Path("runs/demo"),
    evaluate: Annotated[bool, typer.Option("--evaluate", help="train nothing: measure the shipped weights")] = False,
    as_json: AsJson = False,
) -> None:
    """Train by a recipe, or resume, and print the accuracy table."""
    from bigvit_edge.extras import require

    require("demo")

    from bigvit_edge.train import evaluate_shipped, find_recipe, run_recipe

    chosen = find_recipe(recipe)
    rows = evaluate_shipped(chosen) if evaluate else run_recipe(chosen, output)

    from bigvit_edge import tables

    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        tables.print_rows(
            ("model", "keep", "top-1", "digit's patches in the big path"), (row.as_cells() for row in rows)
        )


def main() -> None:
    """Run the command line: the console script's entry."""
    run_program(app)
