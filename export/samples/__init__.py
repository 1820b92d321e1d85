"""Samples for who builds an app: a picture classified by a bundle's own file, in a few lines of several languages.

The templates lie beside this file: NAME.in becomes use/NAME.
"""

import hashlib
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from bigvit_edge.artifact import SAMPLES, Entry

FORMAT, ENDING = "bve", ".in"


def write_samples(entries: Iterable[Entry], folder: Path) -> dict[str, str]:
    """Write the samples into a bundle's folder: use/classify.py and so on.

    They open the smallest .bve among the bundle's files, at its largest keep ratio, and prepare the picture as it says.
    Returns the sha256 of each by its path in the bundle; nothing is written where there is no .bve.
    """
    programs = [entry for entry in entries if entry.format == FORMAT]
    if not programs:
        return {}
    entry = min(programs, key=lambda entry: entry.bytes)
    keep = max(method.keep or 0 for method in entry.methods)
    words = {"@FILE@": entry.file, "@KEEP@": f"{keep:g}"}  # 0: the model has none
    written = {}
    (folder / SAMPLES).mkdir()
    for template in sorted(files(__name__).iterdir(), key=lambda path: path.name):
        if template.name.endswith(ENDING):
            text = template.read_text(encoding="utf-8")
            for word, value in words.items():
                text = text.replace(word, value)
            name = f"{SAMPLES}/{template.name.removesuffix(ENDING)}"
            (folder / name).write_bytes(text.encode())
            written[name] = hashlib.sha256(text.encode()).hexdigest()
    return written
