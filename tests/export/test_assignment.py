"""Which Linear becomes what."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bigvit_edge.errors import UserError
from bigvit_edge.export.assignment import assign_layers, is_linear, list_candidates, list_layers, list_linears
from bigvit_edge.export.calibration import visit_layers
from bigvit_edge.export.convert import capture, rewrite
from bigvit_edge.export.graph import Graph
from bigvit_edge.export.parity import compare
from bigvit_edge.export.quantization import insert_quantization
from bigvit_edge.export.sensitivity import Sensitivity
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.vit import ViT
from bigvit_edge.target import Quant, Target, load_target
from tests.export.convolutional import SIZE, Hybrid, draw, randomize

IMAGES = np.random.default_rng(0).standard_normal((6, 3, 24, 24), np.float32)
TARGET = load_target("host")


@pytest.fixture(scope="module")
def model() -> BLViT:
    torch.manual_seed(0)
    return BLViT(image_size=24, patch=8, dim=32, little_dim=16, depth=2, head_dim=16, little_head_dim=8, num_classes=5)


@pytest.fixture(scope="module")
def graph(model: BLViT) -> Graph:
    return rewrite(capture(model, 24, 0.5))


def assign(graph: Graph, precision: str, target: Target = TARGET, trained: bool = False) -> Graph:
    (found,) = assign_layers([graph], precision, target, IMAGES, trained, lambda *_: None)
    return found


def with_quant(**words: object) -> Target:
    return replace(TARGET, quant=replace(TARGET.quant, **words))


def test_int8_takes_every_linear_but_what_the_scores_hang_on(model: BLViT, graph: Graph) -> None:
    linears = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    wanted = {name for name in linears if "router" not in name and name.split(".")[-1] not in ("little", "down")}
    found = assign(graph, "int8")
    assert found.layers == dict.fromkeys(wanted, "int8")
    assert found.precision == "int8"
    assert not found.ranges


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_float_takes_none(graph: Graph, precision: str) -> None:
    found = assign(graph, precision)
    assert (found.precision, found.layers, found.keep) == (precision, {}, 0.5)


def test_int4_leaves_int8_where_the_inputs_are_no_multiple_of_the_group(graph: Graph) -> None:
    layers = assign(graph, "int4").layers
    assert layers["layers.0.p.attn.q"] == "int4"  # 32 inputs
    assert layers["layers.0.e.attn.q"] == "int8"  # 16 inputs
    assert layers["layers.0.e.mlp.fc2"] == "int4"  # 64 inputs


def test_static_has_one_range_for_each_layer_that_holds_at_every_keep_ratio(model: BLViT) -> None:
    graphs = [rewrite(capture(model, 24, keep)) for keep in (1.0, 0.25)]
    whole, quarter = assign_layers(graphs, "int8-static", TARGET, IMAGES, False, lambda *_: None)
    assert quarter.layers == dict.fromkeys(quarter.layers, "int8-static")
    assert set(quarter.ranges) == set(quarter.layers)
    skipped = {f"layers.{i}.{part}_from_e" for i in (0, 1) for part in "kv"}  # at keep 1 no token is
    assert set(whole.layers) == set(quarter.layers) - skipped
    assert set(whole.ranges) == set(whole.layers)
    assert {layer: quarter.ranges[layer] for layer in whole.ranges} == whole.ranges  # equal integers are stored once
    (alone,) = assign_layers(graphs[:1], "int8-static", TARGET, IMAGES, False, lambda *_: None)
    low, high = alone.ranges["layers.1.p.attn.q"].input
    assert whole.ranges["layers.1.p.attn.q"].input[0] <= low < high <= whole.ranges["layers.1.p.attn.q"].input[1]


def test_keep_float_is_obeyed(graph: Graph) -> None:
    layers = assign(graph, "int8", with_quant(keep_float=("router", "mlp", "head"))).layers
    assert not [name for name in layers if "mlp" in name or "head" in name]
    assert "layers.0.p.attn.q" in layers


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (dict(keep_float=("rooter",)), "quant.keep_float=rooter.*did you mean router"),
        (dict(keep_float=("layers", "head", "little", "up")), "leaves nothing for int8"),
    ],
)
def test_words_that_fit_nothing(graph: Graph, words: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        assign(graph, "int8", with_quant(**words))


def test_parts_of_a_dense_model_are_refused() -> None:
    dense = ViT(image_size=24, patch=8, dim=32, depth=1, head_dim=16, num_classes=5)
    with pytest.raises(UserError, match=r"quant.p=int4; expected a model with Linears in a 'p'"):
        assign(rewrite(capture(dense, 24)), "mixed", with_quant(p="int4"))


def test_parts_have_the_precision_they_are_given(graph: Graph) -> None:
    candidates = list_candidates(list_linears(graph), "mixed", Quant(p="int4", e="int8", router="int8"))
    assert {v for layer, v in candidates.items() if ".p." in layer} == {("int4",)}
    assert {v for layer, v in candidates.items() if ".e." in layer} == {("int8",)}
    assert candidates["layers.0.router.score"] == ("int8",)
    assert candidates["head"] == ("int4", "int8", "fp32")
    assert "little" not in candidates


def test_mixed_is_as_cheap_as_the_limit_allows_and_shows_its_table(graph: Graph) -> None:
    shown: list[tuple[Sequence[Sensitivity], Mapping[str, str]]] = []
    found = {}
    for limit in (0.5, 0.9999999):
        target = replace(TARGET, limits=replace(TARGET.limits, untrained_cosine=limit))
        (found[limit],) = assign_layers([graph], "mixed", target, IMAGES, False, lambda *table: shown.append(table))
    kinds = {limit: sorted(set(g.layers.values())) for limit, g in found.items()}
    assert "int4" in kinds[0.5]
    assert "int4" not in kinds[0.9999999]
    sensitivities, chosen = shown[0]
    assert {s.layer for s in sensitivities} == set(chosen)
    assert {layer for layer, precision in chosen.items() if precision != "fp32"} == set(found[0.5].layers)
    emulated = visit_layers(insert_quantization(found[0.5]), IMAGES, lambda *_: None)
    exact = visit_layers(graph.exported, IMAGES, lambda *_: None)
    assert 0.75 < compare(emulated, exact).cosine_min < 0.99999


def test_convolutions_are_layers_and_have_int8_where_linears_may_have_less() -> None:
    hybrid = randomize(Hybrid())
    layers = list_layers(rewrite(capture(hybrid, SIZE)))
    kinds = {name: type(hybrid.get_submodule(name)) for name in layers}
    assert kinds == {n: type(m) for n, m in hybrid.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    convolutions = {name for name, kind in kinds.items() if kind is nn.Conv2d}
    for precision, words in (("int8", ("int8",)), ("int4", ("int8",)), ("mixed", ("int8", "fp32"))):
        candidates = list_candidates(layers, precision, Quant(candidates=("int4", "int8", "fp32")))
        assert {candidates[name] for name in convolutions} == {words}
    kept = list_candidates(layers, "int8", Quant(keep_float=("stem", "squeeze", "little", "down")))
    assert layers.keys() - kept.keys() == {"stem", "squeeze.reduce", "squeeze.expand", "down"}
    with pytest.raises(UserError, match=r"quant\.keep_float=sten.*did you mean stem"):
        list_candidates(layers, "int8", Quant(keep_float=("sten",)))


def test_mixed_raises_convolutions_to_float_where_the_limit_wants_it() -> None:
    graph, images = rewrite(capture(randomize(Hybrid()), SIZE)), draw(2)
    found = {}
    for limit in (0.5, 0.9999999):
        limits = replace(TARGET.limits, untrained_cosine=limit, convolved_cosine=limit, convolved_centred=limit)
        target = replace(TARGET, limits=limits)
        (one,) = assign_layers([graph], "mixed", target, images, False, lambda *_: None)
        found[limit] = [name for name, node in list_layers(graph).items() if name in one.layers and not is_linear(node)]
    assert len(found[0.5]) == 8
    assert len(found[0.9999999]) < 8
