"""Every op that our evaluator knows, from a saved package: against coremltools' own NumPy inference of the op where it
has one, else against PyTorch or the worked example in coremltools' documentation."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bigvit_edge.console import silenced
from bigvit_edge.runtime import mil
from bigvit_edge.runtime.mil.ops import ABSENT, OPS
from bigvit_edge.runtime.mil.package import Function as Saved
from bigvit_edge.runtime.mil.package import read_folder, read_function
from bigvit_edge.runtime.mil.places import concat

with silenced():
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder, Function, Program, types
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

Array = NDArray[Any]
DRAWS = np.random.default_rng(0)


def draw(*shape: int, low: float = -2, high: float = 2) -> Array:
    return DRAWS.uniform(low, high, shape).astype(np.float32)


def whole(*values: Any) -> Array:
    return np.array(values, np.int32)


X = draw(1, 4, 6, 5)
Reference = Callable[..., Any]


def torch_of(function: Callable[..., Any]) -> Reference:
    """A reference that is given tensors."""
    return lambda **given: function(**{name: torch.from_numpy(value) for name, value in given.items()})


# ---- coremltools computes these itself -------------------------------------------------------------------------------

INFERRED: list[tuple[str, dict[str, Array], dict[str, Any]]] = [
    *((name, {"x": X}, {}) for name in (
        "abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "exp2", "floor", "identity", "relu", "relu6", "round",
        "sigmoid", "sign", "sin", "sinh", "softplus", "softsign", "square", "tan", "tanh",
    )),
    *((name, {"x": draw(2, 3, low=-0.9, high=0.9)}, {}) for name in ("acos", "asin", "atanh")),
    *((name, {"x": draw(2, 3, low=0.1)}, {}) for name in ("inverse", "log", "rsqrt", "sqrt")),
    *((name, {"x": X, "y": draw(4, 1, 5, low=0.5)}, {}) for name in (
        "add", "floor_div", "greater", "greater_equal", "less", "less_equal", "maximum", "minimum", "mod", "mul",
        "real_div", "sub",
    )),
    ("pow", {"x": draw(2, 3, low=0.1), "y": draw(3)}, {}),
    *((name, {"x": whole(1, -2, 3), "y": whole(1, 2, -3)}, {}) for name in ("equal", "not_equal")),
    ("clamped_relu", {"x": X}, {"alpha": 0.3, "beta": 1.1}),
    ("clip", {"x": X}, {"alpha": -0.5, "beta": 1.1}),
    ("elu", {"x": X}, {"alpha": 0.7}),
    ("gelu", {"x": draw(3, 4)}, {}),
    ("gelu", {"x": draw(3, 4)}, {"mode": "TANH_APPROXIMATION"}),
    ("gelu", {"x": draw(3, 4)}, {"mode": "SIGMOID_APPROXIMATION"}),
    ("leaky_relu", {"x": X}, {"alpha": 0.2}),
    ("linear_activation", {"x": X}, {"alpha": 0.2, "beta": -1.0}),
    ("prelu", {"x": X}, {"alpha": draw(4)}),
    ("scaled_tanh", {"x": X}, {"alpha": 1.7, "beta": 0.6}),
    ("sigmoid_hard", {"x": X}, {"alpha": 0.3, "beta": 0.4}),
    ("softmax", {"x": X}, {}),
    ("softmax", {"x": X}, {"axis": 1}),
    ("softplus_parametric", {"x": X}, {"alpha": draw(4), "beta": draw(4)}),
    ("threshold", {"x": X}, {"alpha": 0.3}),
    ("thresholded_relu", {"x": X}, {"alpha": 0.3}),
    ("thresholded_relu", {"x": X}, {"alpha": -0.3}),
    ("linear", {"x": draw(2, 3)}, {"weight": draw(5, 3), "bias": draw(5)}),
    ("linear", {"x": draw(2, 3)}, {"weight": draw(5, 3)}),
    ("matmul", {"x": draw(2, 3, 4), "y": draw(4, 5)}, {}),
    ("matmul", {"x": draw(2, 4, 3), "y": draw(5, 4)}, {"transpose_x": True, "transpose_y": True}),
    ("layer_norm", {"x": X}, {"axes": [2, 3], "gamma": draw(6, 5), "beta": draw(6, 5), "epsilon": 0.1}),
    ("layer_norm", {"x": X}, {"axes": [1], "gamma": draw(4), "beta": draw(4)}),
    ("l2_norm", {"x": draw(2, 3, 4, 5)}, {}),
    *((name, {"x": draw(2, 3, 4, low=0.1)}, {"axes": [0, -1], "keep_dims": k}) for k in (True, False) for name in (
        "reduce_l1_norm", "reduce_l2_norm", "reduce_log_sum", "reduce_log_sum_exp", "reduce_max", "reduce_mean",
        "reduce_min", "reduce_prod", "reduce_sum", "reduce_sum_square",
    )),
    ("reduce_argmax", {"x": X}, {"axis": 2}),
    ("reduce_argmin", {"x": X}, {"axis": 1, "keep_dims": True}),
    ("argsort", {"x": X}, {"axis": 2}),
    ("argsort", {"x": X}, {"axis": -1, "ascending": True}),
    ("topk", {"x": X}, {"k": 3, "axis": 2}),
    ("topk", {"x": X}, {"k": 2, "axis": -1, "ascending": True}),
    ("cumsum", {"x": X}, {"axis": 2}),
    ("cumsum", {"x": X}, {"axis": 1, "reverse": True}),
    ("band_part", {"x": draw(2, 5, 6)}, {"lower": 1, "upper": 2}),
    ("band_part", {"x": draw(2, 5, 6)}, {"upper": 0}),
    ("concat", {}, {"values": [draw(2, 3), draw(2, 2)], "axis": 1}),
    ("stack", {}, {"values": [draw(2, 3), draw(2, 3)], "axis": -1}),
    ("split", {"x": draw(2, 6)}, {"num_splits": 3, "axis": 1}),
    ("split", {"x": draw(2, 6)}, {"split_sizes": [2, 4], "axis": 1}),
    ("expand_dims", {"x": draw(2, 3)}, {"axes": [0, -1]}),
    ("squeeze", {"x": draw(1, 3, 1)}, {"axes": [-1]}),
    ("squeeze", {"x": draw(1, 3, 1)}, {}),
    ("flatten2d", {"x": X}, {"axis": 2}),
    ("reshape", {"x": X}, {"shape": [2, -1, 5]}),
    ("transpose", {"x": X}, {"perm": [0, 3, -3, 2]}),
    ("tile", {"x": draw(2, 3)}, {"reps": [2, 3]}),
    ("reverse", {"x": X}, {"axes": [1, -1]}),
    ("reverse", {"x": X}, {}),
    ("pad", {"x": X}, {"pad": [1, 2, 0, 1], "mode": "constant", "constant_val": 0.5}),
    ("pad", {"x": X}, {"pad": [1, 0, 2, 1, 3, 1], "mode": "reflect"}),
    ("pad", {"x": X}, {"pad": [2, 1, 0, 3], "mode": "replicate"}),
    ("slice_by_index", {"x": X}, {
        "begin": [0, -3, 4, 1], "end": [1, -1, 0, 4], "stride": [1, 1, -2, 2],
        "begin_mask": [True, False, False, False], "squeeze_mask": [False, False, False, False],
    }),
    ("slice_by_index", {"x": X}, {
        "begin": [0, 1, 2, 0], "end": [0, 0, 3, 2], "end_mask": [False, True, False, False],
        "squeeze_mask": [True, False, True, False],
    }),
    ("slice_by_size", {"x": X}, {"begin": [0, 1, 2, 0], "size": [1, 2, -1, 3]}),
    ("slice_update", {"x": X, "update": draw(1, 2, 3, 5)}, {
        "begin": [0, 1, 0, 0], "end": [1, 3, 6, 5], "stride": [1, 1, 2, 1],
    }),
    ("gather", {"x": X}, {"indices": whole(2, 0, 1), "axis": 2}),
    ("gather", {"x": draw(2, 3, 4, 5)}, {"indices": whole([2, 0], [1, 1]), "axis": 2, "batch_dims": 1}),
    ("gather_along_axis", {"x": X}, {"indices": DRAWS.integers(0, 6, (1, 4, 2, 5)).astype(np.int32), "axis": 2}),
    ("fill_like", {"ref_tensor": X}, {"value": 0.3}),
    ("fill_like", {"ref_tensor": X}, {}),
    ("fill", {}, {"shape": [2, 3], "value": 0.3}),
    ("range_1d", {}, {"start": 1, "end": 12, "step": 3}),
    ("range_1d", {}, {"start": 0.0, "end": 1.0, "step": 0.25}),
    ("shape", {"x": X}, {}),
    ("non_zero", {"x": whole([0, 2, 0], [1, 0, 3])}, {}),
    ("einsum", {}, {"values": (draw(1, 2, 3, 4), draw(1, 4, 3, 5)), "equation": "nchw,nwhu->nchu"}),
    ("select", {"a": draw(2, 3), "b": draw(2, 3)}, {"cond": DRAWS.random((2, 3)) > 0.5}),
    ("cast", {"x": X}, {"dtype": "int32"}),
    ("quantize", {"input": X}, {"scale": np.float32(0.02), "zero_point": np.int8(3), "output_dtype": "int8"}),
]  # fmt: skip

# ---- these it only describes -----------------------------------------------------------------------------------------


def scale_positions(x: Array, points: list[float]) -> Array:
    """Linear interpolation of a row at the points of a worked example."""
    return np.stack([np.interp(points, range(x.shape[-1]), row) for row in x.reshape(-1, x.shape[-1])]).reshape(
        *x.shape[:-1], -1
    )


ROW = draw(1, 1, 1, 2)
EXAMPLES = {  # of rows of 2 in the documentation of resize_bilinear
    ("DEFAULT", 5): [0, 0.4, 0.8, 1, 1],
    ("DEFAULT", 6): [0, 1 / 3, 2 / 3, 1, 1, 1],
    ("STRICT_ALIGN_CORNERS", 5): [0, 0.25, 0.5, 0.75, 1],
    ("ALIGN_CORNERS", 6): [0, 0.2, 0.4, 0.6, 0.8, 1],
    ("ALIGN_CORNERS", 1): [0.5],
    ("OFFSET_CORNERS", 5): [0.1, 0.3, 0.5, 0.7, 0.9],
    ("UNALIGN_CORNERS", 5): [0, 0.1, 0.5, 0.9, 1],
    ("UNALIGN_CORNERS", 6): [0, 0, 1 / 3, 2 / 3, 1, 1],
}
HALVES = torch.full((6,), 0.5)
GRID = draw(1, 3, 4, 2, low=-1.3, high=1.3)
SAMPLE = {"padding_value": 0.0, "coordinates_mode": "normalized_minus_one_to_one"}
AT = DRAWS.integers(0, 6, (1, 4, 2, 5)).astype(np.int32)
UPDATES = draw(1, 4, 2, 5, low=0.5)


def merge(x: torch.Tensor, kind: str) -> Any:
    return x.scatter_reduce(2, torch.from_numpy(AT).long(), torch.from_numpy(UPDATES), kind)


DESCRIBED: list[tuple[str, dict[str, Array], dict[str, Any], Reference]] = [
    ("silu", {"x": X}, {}, torch_of(lambda x: F.silu(x))),
    *((f"logical_{name}", {"x": whole(0, 0, 1, 1), "y": whole(0, 1, 0, 1)}, {}, lambda x, y, f=f: f(x > 0, y > 0))
      for name, f in (("and", np.logical_and), ("or", np.logical_or), ("xor", np.logical_xor))),
    ("logical_not", {"x": whole(0, 1)}, {}, lambda x: x == 0),
    ("conv", {"x": X}, {"weight": (w := draw(6, 2, 3, 2)), "bias": (b := draw(6)), "strides": [2, 1], "groups": 2,
      "pad_type": "custom", "pad": [1, 1, 2, 2], "dilations": [1, 2]},
     torch_of(lambda x: F.conv2d(x, torch.from_numpy(w), torch.from_numpy(b), (2, 1), (1, 2), (1, 2), 2))),
    ("conv", {"x": X}, {"weight": (w1 := draw(6, 4, 3, 3))}, torch_of(lambda x: F.conv2d(x, torch.from_numpy(w1)))),
    ("conv", {"x": X}, {"weight": w1, "pad_type": "same", "strides": [2, 2]},  # 6 x 5, 3 x 3: one below, one around
     torch_of(lambda x: F.conv2d(F.pad(x, (1, 1, 0, 1)), torch.from_numpy(w1), stride=2))),
    ("conv", {"x": X}, {"weight": w1, "pad_type": "same_lower", "strides": [2, 2]},
     torch_of(lambda x: F.conv2d(F.pad(x, (1, 1, 1, 0)), torch.from_numpy(w1), stride=2))),
    ("conv_transpose", {"x": X}, {"weight": (t := draw(4, 3, 3, 2)), "bias": HALVES.numpy(), "groups": 2,
      "strides": [2, 3], "pad_type": "custom", "pad": [1, 1, 0, 0], "dilations": [1, 2]},
     torch_of(lambda x: F.conv_transpose2d(x, torch.from_numpy(t), HALVES, (2, 3), (1, 0), 0, 2, (1, 2)))),
    ("conv_transpose", {"x": X}, {"weight": t, "strides": [2, 2], "pad_type": "custom", "pad": [1, 1, 1, 1],
      "output_shape": [1, 3, 12, 9]},
     torch_of(lambda x: F.conv_transpose2d(x, torch.from_numpy(t), None, 2, 1, (1, 1)))),
    ("max_pool", {"x": X}, {"kernel_sizes": [2, 2], "pad_type": "valid"}, torch_of(lambda x: F.max_pool2d(x, 2, 1))),
    ("max_pool", {"x": X}, {"kernel_sizes": [2, 2], "strides": [2, 2], "pad_type": "valid", "ceil_mode": True},
     torch_of(lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True))),
    *(("avg_pool", {"x": X}, {"kernel_sizes": [3, 3], "strides": [2, 2], "pad_type": "custom", "pad": [1, 1, 1, 1],
       "ceil_mode": up, "exclude_padding_from_average": without},
      torch_of(lambda x, up=up, without=without: F.avg_pool2d(x, 3, 2, 1, up, not without)))
      for up in (True, False) for without in (True, False)),
    ("avg_pool", {"x": X}, {"kernel_sizes": [2, 3], "pad_type": "valid"},
     torch_of(lambda x: F.avg_pool2d(x, (2, 3), 1))),
    ("l2_pool", {"x": X}, {"kernel_sizes": [2, 2], "strides": [2, 2], "pad_type": "valid"},
     torch_of(lambda x: F.lp_pool2d(x, 2, 2))),
    ("batch_norm", {"x": X}, {"mean": (m := draw(4)), "variance": (v := draw(4, low=0.5)), "epsilon": 0.1},
     torch_of(lambda x: F.batch_norm(x, torch.from_numpy(m), torch.from_numpy(v), eps=0.1))),
    ("instance_norm", {"x": X}, {"gamma": m, "beta": v},
     torch_of(lambda x: F.instance_norm(x, weight=torch.from_numpy(m), bias=torch.from_numpy(v)))),
    ("local_response_norm", {"x": X}, {"size": 3, "alpha": 0.5},
     torch_of(lambda x: F.local_response_norm(x, 3, 0.5, 0.75, 1.0))),
    ("scaled_dot_product_attention", {n: draw(1, 2, 3, 4) for n in ("query", "key", "value")}, {},
     torch_of(lambda query, key, value: F.scaled_dot_product_attention(query, key, value))),
    ("dequantize", {}, {"input": np.array([[1, -2], [3, 4]], np.int8), "scale": np.array([0.5, 2], np.float32),
      "zero_point": np.array([1, -1], np.int8), "axis": 1}, lambda: np.array([[0, -2], [1, 10]], np.float32)),
    ("pixel_shuffle", {"x": X}, {"upscale_factor": 2}, torch_of(lambda x: F.pixel_shuffle(x, 2))),
    ("pixel_unshuffle", {"x": X[..., :4]}, {"downscale_factor": np.uint32(2)},
     torch_of(lambda x: F.pixel_unshuffle(x, 2))),
    ("depth_to_space", {"x": np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1)}, {"block_size": 2},
     lambda x: np.array([[[[0, 2], [4, 6]], [[1, 3], [5, 7]]]])),  # a block's places before its channels
    ("space_to_depth", {"x": np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)}, {"block_size": 2},
     lambda x: np.array([0, 4, 1, 5, 2, 6, 3, 7]).reshape(1, 8, 1, 1)),
    ("space_to_batch", {"x": np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)},
     {"block_shape": [2, 2], "paddings": [[0, 0], [2, 0]]},
     lambda x: np.array([[0, 0], [0, 1], [0, 2], [0, 3]]).reshape(4, 1, 1, 2)),
    ("batch_to_space", {"x": np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1)},
     {"block_shape": [2, 2], "crops": [[0, 1], [0, 0]]}, lambda x: np.array([0, 1]).reshape(1, 1, 1, 2)),
    ("crop", {"x": X}, {"crop_height": [1, 2], "crop_width": [0, 3]}, lambda x: x[..., 1:4, :2]),
    ("sliding_windows", {"x": draw(2, 7)}, {"axis": 1, "size": 3, "stride": 2}, torch_of(lambda x: x.unfold(1, 3, 2))),
    ("reverse_sequence", {"x": np.arange(6, dtype=np.float32).reshape(2, 3)},
     {"lengths": whole(2, 3), "seq_axis": 1, "batch_axis": 0}, lambda x: np.array([[1, 0, 2], [5, 4, 3]])),
    ("reshape_like", {"x": draw(6, 5)}, {"ref_tensors": (draw(2, 3, 4), draw(1, 5, 1)), "begins": (0, 1),
      "ends": (2, 0), "end_masks": (False, True)}, lambda x: x.reshape(2, 3, 5, 1)),
    ("one_hot", {"indices": whole(2, 0)}, {"one_hot_vector_size": 3, "axis": 0}, lambda indices: np.eye(3)[[2, 0]].T),
    ("cumsum", {"x": whole(1, 2, 3)}, {"exclusive": True}, lambda x: whole(0, 1, 3)),
    ("gather_nd", {"x": draw(3, 4, 2)}, {"indices": whole([2, 1], [0, 3])}, lambda x: np.stack([x[2, 1], x[0, 3]])),
    ("gather_nd", {"x": draw(2, 4, 2)}, {"indices": whole([[2], [1]], [[0], [3]]), "batch_dims": 1},
     lambda x: np.stack([x[0, [2, 1]], x[1, [0, 3]]])),
    ("scatter", {"data": draw(3, 4, 2)}, {"indices": whole(3, 0), "updates": np.full((3, 2, 2), 9, np.float32),
      "axis": 1, "mode": "update"}, lambda data: np.concatenate(
          [np.full((3, 1, 2), 9), data[:, 1:3], np.full((3, 1, 2), 9)], 1)),
    ("scatter", {"data": np.zeros((3, 1), np.float32)}, {"indices": whole(1, 1), "updates": draw(2, 1) * 0 + 2},
     lambda data: np.array([[0], [4], [0]])),
    *(("scatter_along_axis", {"data": X}, {"indices": AT, "updates": UPDATES, "axis": 2, "mode": mode},
       torch_of(lambda data, kind=kind: merge(data, kind)))
      for mode, kind in (("add", "sum"), ("mul", "prod"), ("max", "amax"), ("min", "amin"))),
    ("scatter_along_axis", {"data": X}, {"indices": AT, "updates": UPDATES, "axis": 2, "mode": "sub"},
     torch_of(lambda data: 2 * data - merge(data, "sum"))),
    ("scatter_nd", {"data": np.zeros((2, 3), np.float32)},
     {"indices": whole([1, 2], [1, 2], [0, 0]), "updates": np.array([1, 2, 4], np.float32)},
     lambda data: np.array([[4, 0, 0], [0, 0, 3]])),
    ("scatter_nd", {"data": np.ones((2, 3), np.float32)},
     {"indices": whole([1]), "updates": np.array([[2, 4, 8]], np.float32), "mode": "div"},
     lambda data: np.array([[1, 1, 1], [0.5, 0.25, 0.125]])),
    *(("resize_bilinear", {"x": ROW}, {"target_size_height": 1, "target_size_width": n, "sampling_mode": mode},
       lambda x, points=points: scale_positions(x, points)) for (mode, n), points in EXAMPLES.items()),
    ("resize", {"x": ROW}, {"shape": [1, 0, 5], "resized_dims": np.uint32(2), "sampling_mode": "UNALIGN_CORNERS"},
     lambda x: scale_positions(x, EXAMPLES["UNALIGN_CORNERS", 5])),
    ("resize_nearest_neighbor", {"x": X}, {"target_size_height": 4, "target_size_width": 8},
     torch_of(lambda x: F.interpolate(x, size=(4, 8), mode="nearest"))),
    ("upsample_nearest_neighbor", {"x": X}, {"scale_factor_height": 2.0, "scale_factor_width": 1.6},
     torch_of(lambda x: F.interpolate(x, size=(12, 8), mode="nearest"))),
    *(("upsample_bilinear", {"x": X}, {"scale_factor_height": 2.0, "scale_factor_width": 1.6, "align_corners": aligned},
       torch_of(lambda x, aligned=aligned: F.interpolate(x, size=(12, 8), mode="bilinear", align_corners=aligned)))
      for aligned in (True, False)),
    *(("resample", {"x": X, "coordinates": GRID}, {**SAMPLE, "sampling_mode": how, "padding_mode": edge,
       "align_corners": aligned},
       torch_of(lambda x, coordinates, options=(how, pad, aligned): F.grid_sample(x, coordinates, *options)))
      for how, edge, pad, aligned in (
          ("bilinear", "constant", "zeros", False), ("nearest", "border", "border", True),
          ("bilinear", "reflection", "reflection", True), ("bilinear", "symmetric", "reflection", False))),
    ("affine", {"x": X}, {**SAMPLE, "transform_matrix": (a := draw(1, 6)), "output_height": 3, "output_width": 4,
      "sampling_mode": "bilinear", "padding_mode": "constant", "align_corners": True},
     torch_of(lambda x: F.grid_sample(
         x, F.affine_grid(torch.from_numpy(a).reshape(1, 2, 3), (1, 4, 3, 4), True), align_corners=True))),
]  # fmt: skip


# ---- the package -----------------------------------------------------------------------------------------------------

CASES = [*((*case, None) for case in INFERRED), *DESCRIBED]
KINDS = {"f": types.fp32, "i": types.int32}
NARROW = (types.bool, types.int8, types.uint8, types.int16, types.uint16)  # no outputs of a model
TARGET = ct.target.iOS18


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """One function with the op of every case, as coremltools saves it. Inputs are called 'case<at>_<name>', outputs
    'case<at>_<number>'."""
    specs = {
        f"case{at}_{name}": Builder.placeholder(value.shape, KINDS[value.dtype.kind])
        for at, (_, inputs, *_) in enumerate(CASES)
        for name, value in inputs.items()
    }
    program = Program()
    with silenced(), Function(specs, opset_version=TARGET) as function:
        outputs = []
        for at, (op, inputs, attributes, _) in enumerate(CASES):
            given = {name: function.inputs[f"case{at}_{name}"] for name in inputs}
            if op.startswith("logical"):
                given = {name: Builder.cast(x=value, dtype="bool") for name, value in given.items()}
            made = getattr(Builder, op)(**given, **attributes)
            for number, value in enumerate(made if isinstance(made, list | tuple) else [made]):
                wide = Builder.cast(x=value, dtype="int32") if value.dtype in NARROW else value
                outputs.append(Builder.identity(x=wide, name=f"case{at}_{number}"))
        function.set_outputs(outputs)
        program.add_function("main", function)
    path = tmp_path_factory.mktemp("ops") / "ops.mlpackage"
    with silenced():
        ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=TARGET,
            compute_precision=ct.precision.FLOAT32,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        ).save(str(path))
    return read_function(read_folder(path), "ops")


def evaluate(saved: Saved, at: int) -> list[Array]:
    """What our evaluator says of one case."""
    op, inputs, *_ = CASES[at]
    outputs = tuple(name for name in saved.outputs if name.split("_")[0] == f"case{at}")
    needed, ops = set(outputs), []
    for each in reversed(saved.ops):
        if needed & each.outputs.keys():
            needed |= {value for several in each.inputs.values() for value in several if isinstance(value, str)}
            ops.append(each)
    assert op in {each.type for each in ops}
    run = mil.open_function(replace(saved, ops=tuple(reversed(ops)), outputs=outputs), op)
    answers = run({f"case{at}_{name}": torch.from_numpy(value) for name, value in inputs.items()})
    return [answers[name].numpy() for name in outputs]


def infer(at: int) -> list[Array]:
    """What coremltools folds the op of a case to when all its inputs are constants."""
    op, inputs, attributes, _ = CASES[at]
    with silenced(), Function({}, opset_version=TARGET):
        made = getattr(Builder, op)(**{name: value.copy() for name, value in inputs.items()}, **attributes)
    return [np.asarray(value.val) for value in (made if isinstance(made, list | tuple) else [made])]


def test_every_op_of_coremltools_is_evaluated_or_listed_with_its_reason() -> None:
    assert set(OPS) | set(ABSENT) == set(SSAOpRegistry.core_ops)
    assert not set(OPS) & set(ABSENT)
    assert all(ABSENT.values())


def test_every_evaluated_op_has_a_case() -> None:
    others = {op for op in OPS if op.startswith("constexpr_")} | {"classify"}  # test_mil.py, test_mil_pictures.py
    assert {case[0] for case in CASES} == set(OPS) - others


@pytest.mark.parametrize("at", range(len(CASES)), ids=lambda at: f"{CASES[at][0]}-{at}")
def test_the_saved_op_equals_its_reference(saved: Saved, at: int) -> None:
    reference, inputs = CASES[at][3], CASES[at][1]
    expected = infer(at) if reference is None else [np.asarray(reference(**inputs))]
    got = evaluate(saved, at)
    assert [a.shape for a in got] == [b.shape for b in expected]
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_channels_are_interleaved_as_shufflenet_does() -> None:
    """As coremltools writes a shuffle of channels."""
    a, b = torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 2)
    expected = torch.channel_shuffle(torch.cat((a, b), 1), 2)
    assert torch.equal(concat((a, b), torch.tensor(1), torch.tensor(True)), expected)
    assert torch.equal(concat((a, b), torch.tensor(-3), torch.tensor(True)), expected)
