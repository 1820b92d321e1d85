"""Saved text of machines, tests/runtime/machines: unpacked into a folder for the probe's root."""

from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent / "runtime/machines"
NAMES = sorted(path.stem for path in FOLDER.glob("*.txt"))


def unpack_machine(name: str, root: Path) -> Path:
    files: dict[str, str] = {}
    for path, lines in list_files((FOLDER / f"{name}.txt").read_text()):
        text = "".join(line if "\0" in line else f"{line}\n" for line in lines)
        files[path] = files.get(path, "") + text
    for path, text in files.items():
        file = root / path.strip("!/")
        if path.endswith("/"):
            file.mkdir(parents=True, exist_ok=True)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755 if path.endswith("!") else 0o644)
    return root


def list_files(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each path, with what its file is to have more."""
    statements: list[tuple[str, str, list[str]]] = []
    for line in text.replace("\\0", "\0").splitlines():
        if line.startswith("|"):
            statements[-1][2].append(line[2:])
        elif line.startswith("/"):
            head, value = (line.rstrip(":"), None) if ": " not in line else line.split(": ", 1)
            path, _, numbers = head.partition(" ")
            statements.append((path, numbers, [] if value is None else [value]))
    for path, numbers, lines in statements:
        first, _, last = numbers.partition("-")
        for number in range(int(first), int(last or first) + 1) if numbers else ("",):
            yield path.replace("{}", str(number)), [line.replace("{}", str(number)) for line in lines]
