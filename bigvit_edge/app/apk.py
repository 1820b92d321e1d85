"""The benchmark app for Android, built from its sources in devices/android by Debian's tools, without network."""

import os
import secrets
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from bigvit_edge.app.android_tools import Key, align, check_tools, compile_classes, compile_resources, find_key, sign
from bigvit_edge.artifact import MANIFEST, Entry, Manifest, list_versions
from bigvit_edge.devices.binaries import find_for
from bigvit_edge.devices.contract import find_cache
from bigvit_edge.errors import UserError, list_few
from bigvit_edge.folders import check_rights
from bigvit_edge.manifest import find_fault, read_manifest, write_manifest
from bigvit_edge.runtime.libraries import Step

PACKAGE = "bigvit.edge.bench"  # the app's name on a phone
ARCHITECTURE, ABI = "aarch64", "arm64-v8a"
FORMAT = "bve"  # the one that runs there
DEMO = "blvit_demo"
MOMENT = (1980, 1, 1, 0, 0, 0)  # of everything in it, so that the same input gives the same bytes
MODE = 0o644 << 16
OTHER = "choose another -o"
COMPRESSION = 9
PAGE = Path(__file__).resolve().parent / "page"
BROWSERS = ("browser.js", "worker.js")  # of the page, what only a browser loads
AS_IT_IS = ("resources.arsc",)  # which Android 11 maps


def build_apk(
    output: Path, bundle: Path | None = None, keystore: Path | None = None, *, force: bool = False,
    step: Step = nullcontext,
) -> tuple[str, ...]:  # fmt: skip
    """Build a signed app with a bundle's .bve files in it.

    output: the file to make, whole or not at all; one that is there is replaced only with force. bundle: its folder;
    None for the demo, which is exported once into this user's cache. keystore: see find_key. step: what surrounds each
    step, given its name. Returns notes: what of the bundle was left out. UserError on what is missing or cannot work,
    before anything is built.
    """
    _check_output(output, force)
    check_tools()
    key = find_key(keystore)
    folder = bundle if bundle is not None else _find_demo(step)
    manifest, notes = choose_files(folder)
    contents = {f"assets/bundle/{entry.file}": _read(folder, entry) for entry in manifest.artifacts}
    with tempfile.TemporaryDirectory(prefix="bigvit-edge-") as work:
        write_manifest(manifest, Path(work))
        contents[f"assets/bundle/{MANIFEST}"] = (Path(work) / MANIFEST).read_bytes()
    _build(output, contents, key, force, step)
    return notes


def build_bare_apk(output: Path, step: Step = nullcontext) -> None:
    """Build the app without a bundle: for who brings models.

    As build_apk does, signed with this user's own key.
    """
    _check_output(output, False)
    check_tools()
    _build(output, {}, find_key(None), False, step)


def _build(output: Path, bundle: dict[str, bytes], key: Key, force: bool, step: Step) -> None:
    program = find_for(ARCHITECTURE, "a phone", step)
    with tempfile.TemporaryDirectory(prefix="bigvit-edge-") as name:
        work = Path(name)
        with step("app: resources and classes"):
            contents = {**bundle, **dict(_list_contents(_find_sources(), program, work))}
        with step("app: packed, aligned and signed"):
            _pack(contents, work / "packed.apk")
            align(work / "packed.apk", work / "aligned.apk")
            sign(work / "aligned.apk", key, work / "signed.apk")
        _put(work / "signed.apk", output, force)


def choose_files(folder: Path) -> tuple[Manifest, tuple[str, ...]]:
    """Choose of a bundle what runs in the app.

    Returns its manifest with these files alone, and notes on the others. UserError if none does, or one is not as it
    was exported.
    """
    manifest = read_manifest(folder)
    files = tuple(entry for entry in manifest.artifacts if entry.format == FORMAT)
    others = [entry.file for entry in manifest.artifacts if entry.format != FORMAT]
    if not files:
        met = f"{folder} has no .bve file ({list_few(others)})"
        raise UserError(met, "one, which is what the app runs", "export with --format bve")
    for entry in files:
        if fault := find_fault(folder, entry):
            raise UserError(f"{folder / entry.file}: {fault}", "the file as exported", "export the model again")
    left = (f"left out, as the app runs .bve files alone: {list_few(others)}",) if others else ()
    return replace(manifest, artifacts=files), left


def _find_demo(step: Step) -> Path:
    folder = find_cache() / f"app-demo-{list_versions(())['bigvit-edge']}"
    if (folder / MANIFEST).is_file():
        return folder
    from bigvit_edge.extras import require
    from bigvit_edge.target import load_target, override

    try:
        require("demo")
    except UserError as e:
        raise UserError(e.met, "what exports the demo that the app shows", f"{e.do}; or name a bundle: --bundle") from e

    from bigvit_edge.export.bundle import Source, export_bundle

    with step("demo, exported once: a minute"):
        export_bundle(Source(DEMO), override(load_target("android"), [f"formats={FORMAT}"]), folder, force=True)
    return folder


def _find_sources() -> Path:
    import bigvit_edge.devices

    return Path(bigvit_edge.devices.__file__).resolve().parent / "android"


def _list_contents(sources: Path, program: Path, work: Path) -> Iterator[tuple[str, bytes]]:
    """What every app holds: name and bytes."""
    with zipfile.ZipFile(compile_resources(sources, list_versions(())["bigvit-edge"], work)) as resources:
        for name in resources.namelist():
            yield name, resources.read(name)
    yield "classes.dex", compile_classes(sources, work).read_bytes()
    yield f"lib/{ABI}/libbve-run.so", program.read_bytes()
    yield from _list_page()


def _list_page() -> Iterator[tuple[str, bytes]]:
    for path in (*sorted(PAGE.iterdir()), PAGE.parent.parent / "pages.css"):
        if path.name not in BROWSERS:
            yield f"assets/page/{path.name}", path.read_bytes()


def _read(bundle: Path, entry: Entry) -> bytes:
    try:
        return (bundle / entry.file).read_bytes()
    except OSError as e:
        raise UserError(f"{bundle / entry.file} cannot be read ({e.strerror})", "a file", "check its rights") from e


def _pack(contents: dict[str, bytes], target: Path) -> None:
    """In order of name; all of it at one moment."""
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(contents):
            info = zipfile.ZipInfo(name, MOMENT)
            info.external_attr = MODE
            info.compress_type = zipfile.ZIP_STORED if name in AS_IT_IS else zipfile.ZIP_DEFLATED
            archive.writestr(info, contents[name], compresslevel=COMPRESSION)


def _check_output(output: Path, force: bool) -> None:
    if output.is_dir():
        raise UserError(f"{output} is a folder", "a file to make", OTHER)
    if os.path.lexists(output) and not force:
        raise UserError(f"{output} is there already", "a new file", f"{OTHER}, or replace it: --force")
    above = next(parent for parent in output.absolute().parents if os.path.lexists(parent))
    if not above.is_dir():
        raise UserError(f"{above} is a file", "a folder to make a file in", OTHER)
    check_rights(above, made="a file")


def _put(made: Path, output: Path, force: bool) -> None:
    """Beside its place, and then there: another file system may lie between."""
    _check_output(output, force)  # the build took a while
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.{secrets.token_hex(4)}.part")
    data = made.read_bytes()
    try:
        part.write_bytes(data)
        part.replace(output)
    except OSError as e:  # a full disk's does not say which
        met = f"{output} cannot be written ({e.strerror})"
        raise UserError(met, f"a place with room for its {len(data):,} bytes", f"{OTHER}, or free some") from e
    finally:
        part.unlink(missing_ok=True)
