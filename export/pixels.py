"""A graph that takes the pixels themselves: how the model wants them is the file's own business then.

What normalisation does is one product and one sum a channel: x = pixel * scale / std - mean / std. Where convolutions
without padding alone read the image, or it is cut into patches for a Linear, both become their weights and biases, and
nothing is computed; patches are cut of bytes. Elsewhere they stay two ops: zeros around a normalised image are no black
pixels, but where black is 0 to the model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from bigvit_edge.artifact import PROBABILITIES, Array
from bigvit_edge.export.graph import (
    Graph,
    add_constant,
    copy_program,
    insert,
    layer_of,
    name_layer,
    read_constants,
    set_constant,
    shape_of,
)
from bigvit_edge.export.integers import Rounded
from bigvit_edge.export.products import list_options
from bigvit_edge.export.quantization import CHANNEL, FAINTEST
from bigvit_edge.preprocessing import NCHW, NHWC, UINT8, Preprocessing

aten = torch.ops.aten

PATCHES = [0, 2, 4, 1, 3, 5]  # [B, 3, rows, p, columns, q] -> [B, rows, columns, 3, p, q]
WHOLE = (0.0, 255.0)  # of pixels: int8 has a step for each
NORMALIZED = "normalized"  # how the constants are called

# Kept as long as the program, because backends start every precision from the one they know.
_taking: WeakKeyDictionary[ExportedProgram, dict[Any, tuple[ExportedProgram, str]]] = WeakKeyDictionary()


def take_pixels(graph: Graph, how: Preprocessing, as_bytes: bool = True) -> Graph:
    """Copy a graph so that it takes pixels.

    how: of the file, whose shape the input is then, in uint8; as_bytes: False for a runtime that gives the pixels in
    float32 of its own, [1, 3, S, S]. What computed in int8 stays so, of pixels themselves on the range 0..255, which
    holds them exactly; of the calibration the first image is left.
    """
    if not as_bytes:
        how = replace(how, layout=NCHW)
    products = _find_products(graph, how)
    folded = tuple(node.name for node in products)
    key = how, as_bytes, folded
    known = _taking.setdefault(graph.exported, {})
    if key not in known:
        known[key] = _write(graph.exported, how, as_bytes, folded)
    program, value = known[key]
    (image,) = graph.exported.graph_signature.user_inputs
    spans, weights = dict(graph.integers.spans), dict(graph.integers.weights)
    if image in spans:
        spans[value] = WHOLE if folded else spans[image]
        if value != image:
            del spans[image]
    constants = read_constants(graph.exported)
    for node in products:
        if node.name in weights:
            weights[node.name] = _round_again(node, weights[node.name], constants, how)
    seen = None if graph.calibration is None else restore_pixels(graph.calibration[:1], how)
    seen = seen if as_bytes or seen is None else seen.astype(np.float32)
    integers = replace(graph.integers, spans=spans, weights=weights)
    return replace(graph, exported=program, calibration=seen, integers=integers)


def restore_pixels(images: Array, how: Preprocessing) -> Any:
    """Restore the pixels of normalised images [n, 3, S, S].

    As a file takes them: uint8 in its layout.
    """
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (how.mean, how.std))
    levels = np.clip(np.rint((images * std + mean) / how.scale), 0, 255).astype(np.uint8)
    levels = levels[:, ::-1] if how.color == "BGR" else levels
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1) if how.layout == NHWC else levels)


def answer_probabilities(graph: Graph) -> Graph:
    """Copy a graph with a softmax behind its logits.

    One that ends with a softmax answers with them already, one of a single class has none.
    """
    if ends_with_softmax(graph.exported):
        return replace(graph, output=PROBABILITIES)
    ((answer,),) = graph.exported.graph.output_node().args
    if shape_of(answer)[-1] == 1:  # of which a softmax makes 1
        return graph
    known = _taking.setdefault(graph.exported, {})
    if PROBABILITIES not in known:
        known[PROBABILITIES] = append_softmax(graph.exported), PROBABILITIES
    return replace(graph, exported=known[PROBABILITIES][0], output=PROBABILITIES)


def ends_with_softmax(program: ExportedProgram) -> bool:
    """Tell whether a program's answer is a softmax's."""
    ((answer,),) = program.graph.output_node().args
    return bool(answer.target is aten.softmax.int)


def takes_pixels(metadata: Mapping[str, str]) -> bool:
    """Tell whether a file of these words takes pixels."""
    return bool(json.loads(metadata.get("preprocessing", "{}")).get("dtype") == UINT8)


def append_softmax(program: ExportedProgram) -> ExportedProgram:
    """Copy a program with a softmax behind its answer."""
    program = copy_program(program)
    output = program.graph.output_node()
    ((logits,),) = output.args
    answer = insert(output, aten.softmax.int, logits, -1)
    answer.meta["nn_module_stack"] = {}  # it is no module's
    output.args = ((answer,),)
    program.graph_signature.replace_all_uses(logits.name, answer.name)
    program.graph_module.recompile()
    return program


def _find_image(program: ExportedProgram) -> Node:
    (name,) = program.graph_signature.user_inputs
    image: Node = next(node for node in program.graph.find_nodes(op="placeholder") if node.name == name)
    return image


def _find_products(graph: Graph, how: Preprocessing) -> list[Node]:
    """The convolutions of the image, or the Linear over its patches, that can take in the normalisation: all that read
    the image, or none."""
    image, constants = _find_image(graph.exported), read_constants(graph.exported)
    readers = list(image.users)
    linear = _find_linear(readers[0]) if len(readers) == 1 and readers[0].target is aten.reshape.default else None
    if linear is not None:
        fits = image.name not in graph.integers.spans and _can_fold(graph, linear, constants, how)
        return [linear] if fits else []
    convolve = all(node.target is aten.conv2d.default and node.args[0] is image for node in readers)
    return readers if convolve and all(_can_fold(graph, node, constants, how) for node in readers) else []


def _can_fold(graph: Graph, node: Node, constants: Mapping[Node, Tensor], how: Preprocessing) -> bool:
    """Whether a weight and bias can be others for that op alone, and zeros around its input are what they were."""
    bias, *options = list_options(node)
    alone = all(x is None or (x in constants and len(x.users) == 1) for x in (_find_data(node.args[1]), bias))
    narrow = node.name in graph.integers.ops
    known = node.name in graph.integers.weights if narrow else name_layer(graph, node) not in graph.layers
    if node.target is aten.linear.default:
        return alone and known
    _, padding, _, groups = options
    return alone and known and groups == 1 and not (any(padding) and any(how.mean))


def _follow(node: Node) -> Node:
    """What alone reads a value; the value itself where there are several."""
    return next(iter(node.users)) if len(node.users) == 1 else node


def _find_linear(cut: Node) -> Node | None:
    """The Linear over the patches that a reshape begins to cut, as rewrite.py writes a patch embedding."""
    turn = _follow(cut)
    flat = _follow(turn)
    linear = _follow(flat)
    kinds = [node.target for node in (turn, flat, linear)]
    if kinds != [aten.permute.default, aten.reshape.default, aten.linear.default] or turn.args[1] != PATCHES:
        return None
    return linear if linear.args[0] is flat else None


def _find_data(weight: Any) -> Any:
    """A weight, or what it is reshaped from."""
    return weight.args[0] if weight.target is aten.reshape.default and len(weight.users) == 1 else weight


def _write(
    program: ExportedProgram, how: Preprocessing, as_bytes: bool, folded: Sequence[str]
) -> tuple[ExportedProgram, str]:
    """The program that takes pixels, and the name of what was its image."""
    program = copy_program(program)
    image = _find_image(program)
    readers, mode = list(image.users), image.meta["val"].fake_mode
    example = torch.zeros(how.shape, dtype=torch.uint8) if as_bytes else torch.zeros(1, 3, how.size, how.size)
    image.meta["val"] = mode.from_tensor(example, static_shapes=True)
    program._example_inputs = ((example,), {})
    products = [node for node in program.graph.nodes if node.name in folded]
    for product in products:
        _fold(program, product, how)
    if products and products[0].target is aten.linear.default:
        _cut_bytes(products[0], how, as_bytes)
        program.graph_module.recompile()
        return program, image.name
    value, before = image, next(node for node in program.graph.nodes if node.op == "call_function")
    if as_bytes:
        value = insert(before, aten._to_copy.default, value, dtype=torch.float32)
        if how.layout == NHWC:
            value = insert(before, aten.permute.default, value, [0, 3, 1, 2])
    if not products:
        value = _normalize(program, before, value, how)
    for node in readers:
        node.replace_input_with(image, value)
    program.graph_module.recompile()
    return program, value.name


def _measure(how: Preprocessing) -> tuple[Tensor, Tensor]:
    """The factor and the number to add of each of the model's channels, in float64."""
    std = torch.tensor(how.std, dtype=torch.float64)
    return how.scale / std, -torch.tensor(how.mean, dtype=torch.float64) / std


def _normalize(program: ExportedProgram, before: Node, value: Node, how: Preprocessing) -> Node:
    if how.color == "BGR":
        channels = [insert(before, aten.slice.Tensor, value, 1, c, c + 1) for c in (2, 1, 0)]
        value = insert(before, aten.cat.default, channels, 1)
    for op, numbers in zip((aten.mul.Tensor, aten.add.Tensor), _measure(how), strict=True):
        constant = add_constant(program, NORMALIZED, numbers.float()[None, :, None, None])
        value = insert(before, op, value, constant)
    return value


def _absorb(data: Tensor, how: Preprocessing) -> tuple[Tensor, Tensor]:
    """A weight [out, 3, ...] for pixels in RGB, of one for normalised images, and what its bias grows by; float64."""
    factor, shift = (each[:, None] for each in _measure(how))
    channels = data.double().flatten(2)  # [out, 3, pixels]
    weight = (channels * factor).reshape(data.shape)
    return weight.flip(1) if how.color == "BGR" else weight, (channels * shift).sum((1, 2))


def _fold(program: ExportedProgram, node: Node, how: Preprocessing) -> None:
    """Write the normalisation of what a convolution or Linear reads into its weight and bias.

    Those of a Linear over patches of an NHWC image in the order that these have: row, column, channel.
    """
    constants, given = read_constants(program), cast(tuple[Any, ...], node.args)
    weight, (bias, *options) = _find_data(given[1]), list_options(node)
    whole = constants[weight]
    data, offset = _absorb(whole.reshape(len(whole), 3, -1), how)
    if node.target is aten.linear.default and how.layout == NHWC:
        data = data.transpose(1, 2)
    set_constant(program, weight, data.reshape(whole.shape).float().contiguous())
    if bias is not None:
        set_constant(program, bias, (constants[bias].double() + offset).float())
    else:
        name = f"{layer_of(node)}.bias".lstrip(".")
        node.args = (*given[:2], add_constant(program, name, offset.float()), *options)


def _round_again(node: Node, rounded: Rounded, constants: Mapping[Node, Tensor], how: Preprocessing) -> Rounded:
    """A convolution's integers for pixels: the same where all channels have one std, else rounded once more."""
    data, offset = _absorb(rounded.integers.double() * rounded.scale.double()[:, None, None, None], how)
    bias = list_options(node)[0]
    own = rounded.bias if rounded.bias is not None or bias is None else constants[bias]
    scale = (data.abs().amax((1, 2, 3)) / CHANNEL[1]).clamp(min=FAINTEST)
    integers = torch.round(data / scale[:, None, None, None]).to(torch.int8)
    return Rounded(integers, scale.float(), (offset if own is None else own.double() + offset).float())


def _cut_bytes(linear: Node, how: Preprocessing, as_bytes: bool) -> None:
    """Cut patches of the pixels as they lie; what the Linear reads is float."""
    flat: Any = linear.args[0]
    turn: Any = flat.args[0]
    cut: Any = turn.args[0]
    image, (b, _, rows, p, columns, q) = cut.args
    if how.layout == NHWC:
        cut.args = (image, [b, rows, p, columns, q, 3])
        turn.args = (cut, [0, 1, 3, 2, 4, 5])
    for node in (cut, turn, flat):
        source = node.args[0].meta["val"]
        with source.fake_mode:
            node.meta["val"] = node.target(source, node.args[1])
    if as_bytes:
        linear.replace_input_with(flat, insert(linear, aten._to_copy.default, flat, dtype=torch.float32))
