"""What one of LiteRT's runtimes says through our delegate, for test_litert.py; also on an ARM CPU that qemu plays:

python tests/runtime/ask_litert.py FRAMEWORK FILE.tflite FILE.bve KEEPS IMAGE.npy AROUND.tflite ANSWERS.npz

ANSWERS gets each keep ratio's logits, from the door and from Session, and those of AROUND, of which our core runs a
part; stdout, as JSON, what wrong input was told.
"""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np

from bigvit_edge.errors import UserError
from bigvit_edge.runtime import Session, litert


def main(framework: str, tflite: str, bve: str, keeps: str, image: str, around: str, answers: str) -> None:
    litert.FRAMEWORKS = (framework,)
    kit, pixels = import_module(f"{framework}.interpreter"), np.load(image)
    library, content = str(litert.load_library()), Path(tflite).read_bytes()
    found = {}
    for keep in map(float, keeps.split(",")):
        found[f"door {keep:g}"] = litert.load(tflite, keep).run(pixels)
        found[f"session {keep:g}"] = Session(bve, keep=keep).run(pixels)

    found["around"] = litert.load(around, 0.5).run(pixels)

    def open_file(**options: object) -> object:
        """The interpreter with our delegate, by itself."""
        source = options or {"model_path": tflite}
        return kit.Interpreter(experimental_delegates=[kit.load_delegate(library)], **source)

    def allocate(**options: object) -> object:
        interpreter = open_file(**options)
        interpreter.allocate_tensors()
        return interpreter

    def given(path: str, **options: int) -> None:
        delegate = kit.load_delegate(library, options)
        kit.Interpreter(path, experimental_delegates=[delegate]).allocate_tensors()

    def resize(*shape: int) -> None:
        interpreter = open_file()
        interpreter.resize_tensor_input(0, shape)
        interpreter.allocate_tensors()

    interpreter = allocate(model_content=content)  # bytes that lie anywhere
    interpreter.set_tensor(0, pixels)
    interpreter.invoke()
    found["content"] = interpreter.get_tensor(2)
    np.savez(answers, **found)
    other = bytearray(content)
    other[other.index(b"BVE1") + 4] += 8
    cases: dict[str, Callable[[], object]] = {
        "option": lambda: kit.load_delegate(library, {"thread": 1}),
        "number": lambda: kit.load_delegate(library, {"threads": "two"}),
        "threads": lambda: given(tflite, threads=4000),
        "many threads": lambda: allocate(model_path=tflite, num_threads=4000),
        "shape": lambda: resize(1, 32, 32, 3),
        "version": lambda: open_file(model_content=bytes(other)),
        "no delegate": lambda: kit.Interpreter(tflite).allocate_tensors(),
        "load threads": lambda: litert.load(tflite, threads=4000),
        "load keep": lambda: litert.load(tflite, 0.75),
    }
    print(
        json.dumps({"ops": list_ops(allocate(model_path=tflite)), **{name: tell(case) for name, case in cases.items()}})
    )


def list_ops(interpreter: object) -> list[str]:
    return [op["op_name"] for op in interpreter._get_ops_details()]  # type: ignore[attr-defined]


def tell(case: Callable[[], object]) -> str:
    try:
        case()
    except (RuntimeError, ValueError, UserError) as e:
        return f"{type(e).__name__}: {e}"
    return ""


if __name__ == "__main__":
    main(*sys.argv[1:])
