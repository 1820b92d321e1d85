"""kernels_arm/README.md against kernels.inc: the table of kernels is the list's."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ISAS = ["scalar", "neon", "neonfp16", "neondot", "neoni8mm", "avx2", "avx512vnni"]
TILE = r"u\d+|\d+x\d+(?:x\d+)?"
NAME = re.compile(rf"bve_(\w+?)_({TILE})_({'|'.join(ISAS)})(?:_(a\d+))?")


def list_names() -> list[str]:
    text = (ROOT / "kernels_arm" / "kernels.inc").read_text()
    return re.findall(r"^BVE_[A-Z]+\((\w+),", text, re.MULTILINE)


def make_table() -> list[str]:
    tiles: dict[str, dict[str, list[str]]] = {}
    for name in list_names():
        match = NAME.fullmatch(name)
        assert match, f"{name} is no name of a kernel: see the grammar in kernels_arm/README.md"
        kind, tile, isa, core = match.groups()
        tiles.setdefault(kind, {}).setdefault(isa, []).append(f"{tile} {core}" if core else tile)
    rows = [[f"`{kind}`", *(", ".join(cells.get(isa, [])) for isa in ISAS)] for kind, cells in tiles.items()]
    return ["| " + " | ".join(cells) + " |" for cells in [["kernel", *ISAS], ["---"] * 8, *rows]]


def test_the_list_is_read() -> None:
    names = list_names()
    assert len(names) == len(set(names)) > 30
    assert "bve_gemm_f32_qd8_qc8p_1x16x4_scalar" in names


def test_the_table_of_kernels_is_the_list() -> None:
    lines = (ROOT / "kernels_arm" / "README.md").read_text().splitlines()
    start = lines.index(make_table()[0])
    table = [line for line in lines[start:] if line.startswith("| ")][: len(make_table())]
    assert table == make_table(), "paste into kernels_arm/README.md:\n" + "\n".join(make_table())


def test_what_the_table_of_names_allows_is_what_is_used() -> None:
    text = (ROOT / "kernels_arm" / "README.md").read_text()
    allowed: dict[str, set[str]] = {}
    for part in ("op", "type", "isa", "core"):
        (cell,) = re.findall(rf"^\| {part} \| (.*) \|$", text, re.MULTILINE)
        allowed[part] = set(re.findall(r"`(\w+)`", cell)) - {"p"}  # p: a type's suffix
    used: dict[str, set[str]] = {part: set() for part in allowed}
    for name in list_names():
        match = NAME.fullmatch(name)
        assert match
        op, *types = match[1].split("_")
        used["op"].add(op)
        used["type"].update(kind.removesuffix("p") for kind in types)
        used["isa"].add(match[3])
        used["core"].update({match[4]} - {None})
    assert used == allowed
