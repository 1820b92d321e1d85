"""What the page runs files in: two runtimes compiled to WebAssembly, which npm brings, pinned by their hashes."""

import base64
import hashlib
import os
import subprocess
import tarfile
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from bigvit_edge.devices.contract import find_cache
from bigvit_edge.errors import UserError
from bigvit_edge.interruption import shielded
from bigvit_edge.runtime.libraries import Step, find_tool

NPM_S = 600.0  # for 33 MB
AGAIN = "try again with a network, or let npm reach its registry"


@dataclass(frozen=True)
class Package:
    """A package of npm, and the files that the page takes.

    sha512: of its archive, as npm's `dist.integrity` has it. files: the name in the archive, by the name that the page
    knows it by.
    """

    name: str
    version: str
    sha512: str
    files: dict[str, str]


LITERT = "litert_wasm_internal", "litert_wasm_compat_internal", "litert_wasm_threaded_internal"
PACKAGES = (
    Package(
        "onnxruntime-web", "1.30.0",
        "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        {name: f"dist/{name}" for name in (
            "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm",
        )},
    ),
    Package(
        "@litertjs/core", "2.5.3",
        "PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
        {"litert.js": "dist/index.js"} | {f"{name}.{end}": f"wasm/{name}.{end}" for name in LITERT for end in (
            "js", "wasm",
        )},
    ),
    Package(
        "@litertjs/wasm-utils", "2.5.3",
        "4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
        {"wasm-utils.js": "dist/index.js"},
    ),
)  # fmt: skip
# A worker knows no import map, so what one package calls another by becomes the name of its file.
RENAMED = {"litert.js": (b'"@litertjs/wasm-utils"', b'"./wasm-utils.js"')}


def find_packages(step: Step = nullcontext) -> dict[str, Path]:
    """Find the packages' files, by the names that the page knows.

    They lie in this user's cache; npm brings what is not there yet, and runs nothing of it. step: what surrounds that,
    given its name. UserError where npm is missing, fails, or brings what is not pinned here.
    """
    return {name: path for package in PACKAGES for name, path in find_package(package, step).items()}


def find_package(package: Package, step: Step = nullcontext) -> dict[str, Path]:
    """Find one package's files.

    As find_packages does.
    """
    folder = find_cache() / "npm" / f"{package.name.replace('/', '+')}-{package.version}"
    paths = {name: folder / name for name in package.files}
    if not all(path.is_file() for path in paths.values()):
        npm = find_tool("npm", "apt-get install npm", "which brings what runs files in a browser")
        with step(f"{package.name} {package.version}, brought once by npm: a minute"):
            _unpack(package, download(package, npm), folder)
    return paths


def download(package: Package, npm: str) -> bytes:
    """Download a package by npm: the archive's bytes.

    UserError where npm fails, or brings what is not pinned.
    """
    wanted = f"{package.name}@{package.version}"
    with tempfile.TemporaryDirectory(prefix="bigvit-edge-") as folder:
        command = (npm, "pack", "--silent", "--ignore-scripts", wanted)
        try:
            done = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=NPM_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as e:
            raise UserError(f"npm did not bring {wanted} in {NPM_S:g} s", "a network", AGAIN) from e
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            told = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()[-1]
            raise UserError(f"npm did not bring {wanted} ({told})", "a network", AGAIN)
        data = archives[0].read_bytes()
    sha512 = base64.b64encode(hashlib.sha512(data).digest()).decode()
    if sha512 != package.sha512:
        met = f"what npm brought for {wanted} has SHA-512 {sha512[:12]}…"
        raise UserError(met, f"{package.sha512[:12]}…, as it was published", AGAIN)
    return data


def _unpack(package: Package, archive: bytes, folder: Path) -> None:
    """The files that are asked for and no others; each whole or not at all."""
    with tempfile.TemporaryFile() as file:
        file.write(archive)
        file.seek(0)
        with tarfile.open(fileobj=file) as held, shielded():
            folder.mkdir(parents=True, exist_ok=True)
            for name, inside in package.files.items():
                member = held.extractfile(f"package/{inside}")
                assert member  # the archive is the one that was pinned
                data = member.read()
                if name in RENAMED:
                    data = data.replace(*RENAMED[name])
                part = folder / f".{name}.{os.getpid()}.part"
                part.write_bytes(data)
                part.replace(folder / name)
