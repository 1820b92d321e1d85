"""What a lowered program means, in numpy and float: weights are taken out of their panels, activations never rounded.

Each function is one op of runtime/core.h, written from its comment there.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigvit_edge.export.program import (
    Attention,
    Before,
    BufferType,
    Entry,
    Fill,
    Linear,
    List,
    Mlp,
    Patches,
    Program,
    Route,
    Weight,
    WeightType,
)

Floats = NDArray[np.float32]
EPSILON = 1e-6
KR = {WeightType.F32: 1, WeightType.F16: 1, WeightType.QC8X4: 4, WeightType.QC8X8: 8}
erf = np.vectorize(math.erf, otypes=[np.float64])


def interpret(program: Program, entry: Entry, image: Floats) -> Floats:
    """Image [1, 3, S, S] -> logits [1, classes]. What an op does not write stays NaN."""
    buffers: list[Any] = [
        np.full((b.rows, b.columns), np.nan, np.float32) if b.type == BufferType.F32 else np.full(b.columns, -1)
        for b in entry.buffers
    ]
    buffers[0][:] = image.reshape(buffers[0].shape)
    weights = [unpack(weight) for weight in program.weights]
    for op in entry.ops:
        OPS[type(op.call)](op.call, buffers, weights)
    return buffers[1]  # type: ignore[no-any-return]


def unpack(weight: Weight) -> Any:
    """A plain tensor, or of a Linear its weight [outputs, inputs] and bias [outputs]."""
    if weight.type in (WeightType.VECTOR, WeightType.MATRIX):
        return np.frombuffer(weight.data, np.float32).reshape(weight.rows, weight.columns)
    n, k, kr = weight.rows, weight.columns, KR[weight.type]
    panels = np.frombuffer(weight.data, np.uint8).reshape(-(-n // 16), -1)
    heads = 1 if kr == 1 else 3
    head = panels[:, : 64 * heads].copy().view(np.float32)  # [panels, 16 * heads]
    dtype = {WeightType.F32: np.float32, WeightType.F16: np.float16}.get(weight.type, np.int8)
    depth = -(-k // kr) * kr
    body = panels[:, 64 * heads :].copy().view(dtype)[:, : depth * 16]
    data = body.reshape(len(panels), depth // kr, 16, kr).transpose(0, 2, 1, 3).reshape(-1, depth).astype(np.float32)
    assert not data[n:].any()
    assert not data[:, k:].any()
    if kr == 1:
        return data[:n, :k], head.reshape(-1)[:n]
    scale, bias = head[:, :16].reshape(-1, 1), head[:, 16:32].reshape(-1)
    assert np.array_equal(head[:, 32:].copy().view(np.int32).reshape(-1), data.sum(1))
    return (data * scale)[:n, :k], bias[:n]


def _rows(rows_list: int | None, count: int, buffers: list[Any], first: int = 0) -> Any:
    return range(first, first + count) if rows_list is None else buffers[rows_list][:count]


def _normalize(x: Floats, gain: Floats, offset: Floats) -> Floats:
    centred = x - x.mean(1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(1, keepdims=True) + EPSILON) * gain + offset  # type: ignore[no-any-return]


def _gelu(x: Floats) -> Floats:
    return (x * 0.5 * (1 + erf(x / math.sqrt(2)))).astype(np.float32)  # type: ignore[no-any-return]


def _softmax(x: Floats) -> Floats:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)  # type: ignore[no-any-return]


def _patches(op: Patches, buffers: list[Any], weights: list[Any]) -> None:
    size = buffers[op.image].shape[1]
    image, side = buffers[op.image].reshape(3, size, size), size // op.patch
    for row in range(side):
        for column in range(side):
            y, x = row * op.patch, column * op.patch
            buffers[op.dst][row * side + column] = image[:, y : y + op.patch, x : x + op.patch].reshape(-1)


def _list(op: List, buffers: list[Any], weights: list[Any]) -> None:
    buffers[op.dst][0] = op.value


def _fill(op: Fill, buffers: list[Any], weights: list[Any]) -> None:
    buffers[op.dst][:] = weights[op.matrix]


def _linear(op: Linear, buffers: list[Any], weights: list[Any]) -> None:
    x = buffers[op.src][_rows(op.src_rows, op.rows, buffers)]
    if op.before == Before.LAYERNORM:
        x = _normalize(x, weights[op.gain], weights[op.offset])
    elif op.before == Before.GELU:
        x = _gelu(x)
    weight, bias = weights[op.linear]
    part = slice(op.first_column, op.first_column + op.columns)
    y = x @ weight[part].T + bias[part]
    if op.gate is not None:
        y *= buffers[op.gate][0, : op.rows, None]
    rows = _rows(op.dst_rows, op.rows, buffers, op.dst_first_row)
    columns = slice(op.dst_first_column, op.dst_first_column + op.columns)
    buffers[op.dst][rows, columns] = y + (buffers[op.dst][rows, columns] if op.accumulate else 0)


def _attention(op: Attention, buffers: list[Any], weights: list[Any]) -> None:
    n, width = buffers[op.qkv].shape
    q, k, v = buffers[op.qkv].reshape(n, 3, op.heads, width // 3 // op.heads).transpose(1, 2, 0, 3)  # [H, N, d]
    mixed = _softmax(q[:, : op.queries] @ k.transpose(0, 2, 1)) @ v  # [H, queries, d]
    buffers[op.dst][: op.queries] = mixed.transpose(1, 0, 2).reshape(op.queries, width // 3)


def _route(op: Route, buffers: list[Any], weights: list[Any]) -> None:
    z = buffers[op.src]
    logits = _normalize(z, weights[op.gain], weights[op.offset]) @ weights[op.weight][0] + weights[op.bias][0]
    score = _softmax(logits)
    best = np.argsort(-score[1:], kind="stable")[: op.k - 1] + 1
    selected = np.concatenate([[0], np.sort(best)])
    buffers[op.selected][:] = selected
    if op.skipped is not None:
        buffers[op.skipped][:] = np.setdiff1d(np.arange(len(z)), selected)
    odds = len(z) * score[selected]
    buffers[op.gate][0] = 2 * odds / (1 + odds)


def _mlp(op: Mlp, buffers: list[Any], weights: list[Any]) -> None:
    rows = _rows(op.rows_list, op.rows, buffers)
    (w1, b1), (w2, b2) = weights[op.fc1], weights[op.fc2]
    x = _normalize(buffers[op.data][rows], weights[op.gain], weights[op.offset])
    y = _gelu(x @ w1.T + b1) @ w2.T + b2
    buffers[op.data][rows] += y if op.gate is None else y * buffers[op.gate][0, : op.rows, None]


OPS: dict[type, Any] = {
    Patches: _patches,
    List: _list,
    Fill: _fill,
    Linear: _linear,
    Attention: _attention,
    Route: _route,
    Mlp: _mlp,
}
