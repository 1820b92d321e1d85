"""Any file of a bundle, ready to run here: each format in its own runtime, without what converts models."""

import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from bigvit_edge.artifact import Entry, Runner
from bigvit_edge.errors import UserError

# What brings a format's runtime, where it is not installed; runtime/litert.py says LiteRT's.
BRINGS = {
    "coreml": "pip install 'bigvit-edge[coreml]'",
    "executorch": "pip install 'bigvit-edge[executorch]'",
    "onnx": "pip install onnxruntime",
}


def open_entry(folder: Path, entry: Entry, threads: int = 1, method: str | None = None) -> Runner:
    """Open an entry point of a bundle's file, the first when None.

    UserError if its runtime is not installed or refuses the file, or if that takes and answers other shapes than the
    manifest says, or says otherwise itself.
    """
    runner = load_file(entry.format, folder / entry.file, threads, method)
    (image,), (answer,) = entry.inputs, entry.outputs
    for what, found, told in (
        ("takes an image", f"{runner.dtype} {list(runner.image)}", f"{image.dtype} {list(image.shape)}"),
        ("answers", f"{runner.output} {list(runner.logits)}", f"{answer.name} {list(answer.shape)}"),
    ):
        if found != told:
            met = f"{entry.file} {what} {found}, where its manifest says {told}"
            raise UserError(met, "a manifest of that file", "export the model again")
    says = {"precision": entry.precision, "labels": entry.labels, "preprocessing": asdict(entry.preprocessing)}
    for word in sorted(says.keys() & runner.words.keys()):
        if not _agree(runner.words[word], json.loads(json.dumps(says[word]))):
            own, other = (str(value)[:60] for value in (runner.words[word], says[word]))
            met = f"{entry.file} says of itself {word} {own}, where its manifest says {other}"
            raise UserError(met, "a manifest of that file", "export the model again")
    return runner


def _agree(text: str, told: object) -> bool:
    """Whether a file says what its manifest does; of several things, those that it knows."""
    try:
        own = json.loads(text)
    except ValueError:  # a plain word
        return text == told
    if isinstance(own, dict) and isinstance(told, dict):
        return all(told.get(key) == value for key, value in own.items())
    return bool(own == told)


def load_file(format_: str, path: Path, threads: int = 1, method: str | None = None) -> Runner:
    """Load a file of that format as bigvit_edge.runtime.formats has it.

    UserError if its runtime is not installed.
    """
    try:
        loader = import_module(f"bigvit_edge.runtime.formats.{format_}")
    except ModuleNotFoundError as e:
        if e.name is None or e.name.startswith("bigvit_edge"):
            raise
        do = BRINGS.get(format_, "")
        raise UserError(f"{e.name} is not installed", f"the runtime of {path.name}", do) from e
    return loader.load(path, threads, method)  # type: ignore[no-any-return]
