"""The rules of the house that a machine can hold: sizes, docstrings, links, floors, what is committed."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from bigvit_edge import target

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "bigvit_edge"
MAX_LINES = 400
MAX_WORDS = 12  # of a docstring's first line
NO_VERBS = {
    "a",
    "an",
    "each",
    "every",
    "how",
    "its",
    "of",
    "the",
    "usererror",
    "what",
    "where",
    "whether",
    "which",
    "who",
}
MAX_WEIGHTS_BYTES = 3_000_000
MAX_SEEDS_BYTES = 64_000
MACHINE_PATH = re.compile(r"/(?:(?:home|Users)/\w+|root)/")


def list_files() -> list[Path]:
    """Committed files and those a commit could take; links are left out."""
    git = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run(git, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file() and not path.is_symlink()]


def is_binary(path: Path) -> bool:
    return b"\0" in path.read_bytes()


def test_files_are_short() -> None:
    sources = [path for path in list_files() if path.suffix in {".py", ".c", ".cc", ".h", ".inc"}]
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources}
    assert "tests/test_house.py" in lines
    assert {name: count for name, count in lines.items() if count >= MAX_LINES} == {}


def list_docstrings(place: str, node: ast.AST) -> Iterator[tuple[str, ast.AST, str]]:
    """List the public definitions in a module or class: place, definition, first paragraph of the docstring."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        where = f"{place}:{child.name}"
        if not child.name.startswith("_") and (text := ast.get_docstring(child)):
            yield where, child, text.partition("\n\n")[0]
        if isinstance(child, ast.ClassDef):
            yield from list_docstrings(where, child)


def test_docstrings_begin_with_one_short_line_and_a_verb() -> None:
    folders = {"bigvit_edge", "export", "devices", "runtime", "kernels_arm"}
    names = [path.relative_to(ROOT) for path in list_files() if path.suffix == ".py"]
    sources = [name for name in names if name.parts[0] in folders]
    firsts = [first for name in sources for first in list_docstrings(str(name), ast.parse((ROOT / name).read_text()))]
    assert len(firsts) > 500
    assert [where for where, _, first in firsts if "\n" in first or len(first.split()) > MAX_WORDS] == []
    functions = [(where, first) for where, node, first in firsts if not isinstance(node, ast.ClassDef)]
    assert [where for where, first in functions if first.split()[0].lower() in NO_VERBS] == []


def test_folders_with_python_are_linked() -> None:
    links = {path.name: str(path.readlink()) for path in PACKAGE.iterdir() if path.is_symlink()}
    with_python = {name for name in ("export", "runtime", "kernels_arm", "devices") if any((ROOT / name).glob("*.py"))}
    assert links == {name: f"../{name}" for name in with_python}
    assert all((PACKAGE / name).samefile(ROOT / name) for name in links)


@pytest.mark.parametrize("name", ["export", "runtime", "devices"])
def test_bare_imports_are_refused(name: str) -> None:
    ruff = [sys.executable, "-m", "ruff", "check", "--select=TID", "--output-format=concise", "--no-cache"]
    code = f"import {name}\nimport bigvit_edge.{name}\nfrom {name} import x\nfrom bigvit_edge.{name} import y\n"
    stdin = ["--stdin-filename=export/example.py", "-"]
    found = subprocess.run(ruff + stdin, cwd=ROOT, input=code, capture_output=True, text=True, check=False).stdout
    assert re.findall(r"py:(\d+):\d+: (TID\d+)", found) == [("1", "TID251"), ("3", "TID251")]


def test_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True, no_logo=True) == EXIT_STATUS_SUCCESS


@pytest.mark.parametrize("command", ["demo", "test"])
def test_readme_names_the_two_commands(command: str) -> None:
    assert f"make {command}" in (ROOT / "README.md").read_text()
    assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_only_small_weights_are_binary() -> None:
    binaries = [path for path in list_files() if is_binary(path)]
    weights = list((PACKAGE / "demo").glob("*.safetensors"))
    seeds = list((ROOT / "tests" / "runtime" / "corpus").iterdir())  # what the fuzzer starts from
    assert sorted(binaries) == sorted(weights + seeds)
    assert sum(path.stat().st_size for path in weights) < MAX_WEIGHTS_BYTES
    assert sum(path.stat().st_size for path in seeds) < MAX_SEEDS_BYTES


def test_no_file_names_a_machine() -> None:
    texts = {path: path.read_text() for path in list_files() if not is_binary(path)}
    assert {str(path): found for path, text in texts.items() if (found := MACHINE_PATH.findall(text))} == {}


def test_targets_load() -> None:
    names = [path.stem for path in (PACKAGE / "targets").glob("*.toml")]
    assert {"android", "host"} <= set(names)
    for name in names:
        target.load_target(name)
