"""The command line's verbs on apps: what shows a bundle's speed on a phone, in a browser or in an app of yours."""

from pathlib import Path
from typing import Annotated

import typer

from bigvit_edge.exits import explained

app = typer.Typer(no_args_is_help=True, help="Build the benchmark app for phones, or serve it to browsers.")


@app.command()
@explained
def apk(
    output: Annotated[Path, typer.Option("--output", "-o", help="file to make")] = Path("bigvit-bench.apk"),
    bundle: Annotated[Path | None, typer.Option(help="whose .bve files it shows; the demo if not given")] = None,
    keystore: Annotated[
        Path | None,
        typer.Option(help="to sign with, its password in $BVE_KEYSTORE_PASSWORD; your cache's if not given"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a file that is there")] = False,
) -> None:
    """Build the benchmark app for Android, signed.

    By Debian's tools, without Gradle and without network. It measures as `bigvit-edge bench` does, and needs Android 6
    on a 64-bit ARM phone: adb install bigvit-bench.apk
    """
    from bigvit_edge import tables
    from bigvit_edge.app.apk import build_apk

    notes = build_apk(output, bundle, keystore, force=force, step=tables.print_step)
    tables.print_notes(notes)
    print(f"{output}  {output.stat().st_size:,} bytes")


@app.command()
@explained
def web(
    files: Annotated[list[Path], typer.Argument(help="bundles, .onnx or .tflite files")],
    host: Annotated[
        str | None,
        typer.Option(help="address to listen on, for other machines too: one browser, by a one-time token"),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8317,
    results: Annotated[Path, typer.Option(help="folder for what browsers measure")] = Path("results"),
) -> None:
    """Serve the benchmark page: files in a browser's WebAssembly runtimes.

    Its figures are a browser's and no device's own. Only this machine may ask, unless --host is given. npm brings the
    runtimes once. Ctrl-C ends it.
    """
    from bigvit_edge.extras import require

    require("web")

    from bigvit_edge.app.web import serve_page

    serve_page(files, host, port, results)


@app.command()
@explained
def ios(
    bundle: Annotated[Path, typer.Option(help="whose Core ML packages it measures: export --target ios")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to make")] = Path("bigvit-bench-ios"),
) -> None:
    """Write the benchmark app for iPhones as a Swift package, for Xcode.

    It is not built here, and was never built on a Mac: the folder's README says what was tried.
    """
    from bigvit_edge import tables
    from bigvit_edge.app.ios import write_ios_app

    tables.print_notes(write_ios_app(output, bundle))
    print(output)
