"""One of our models inside a model of others: found, taken out and put back, and the two graphs that come of it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.errors import UserError
from bigvit_edge.export.assignment import list_linears
from bigvit_edge.export.calibration import visit_layers
from bigvit_edge.export.convert import capture, list_refusals, part, rewrite
from bigvit_edge.export.graph import Graph, matrix_products
from bigvit_edge.export.inlay import (
    PROGRAM,
    answering,
    count_calls,
    list_inlays,
    part_of,
    record_images,
    rest_of,
    taken_out,
)
from bigvit_edge.export.native import lower_native
from bigvit_edge.export.program import from_bytes
from bigvit_edge.export.quantization import insert_quantization
from bigvit_edge.models.blvit import BLViT
from bigvit_edge.models.vit import ViT
from bigvit_edge.target import load_target, override
from tests.models.around import SIZE, Around, build

IMAGES = np.random.default_rng(0).standard_normal((3, 3, SIZE, SIZE), dtype=np.float32)


def make_vit() -> ViT:
    return ViT(image_size=SIZE, patch=8, dim=32, depth=1, head_dim=16, num_classes=5)


class Using(nn.Module):
    """A model around a ViT that uses it as told."""

    def __init__(self, use: Callable[[ViT, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.use = make_vit(), use

    def forward(self, images: Tensor) -> Tensor:
        return self.use(self.net, images)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return part(rewrite(capture(build(), SIZE, 0.5)), "net", IMAGES)


# ---- found, taken out ------------------------------------------------------------------------------------------------


def test_ours_are_found_wherever_they_are() -> None:
    assert list_inlays(build()) == ["net"]
    assert list_inlays(make_vit()) == [""]
    assert list_inlays(nn.Sequential(nn.ReLU(), nn.ModuleDict({"a": make_vit(), "b": build()}))) == ["1.a", "1.b.net"]
    assert list_inlays(nn.Linear(2, 2)) == []


def test_formats_with_a_framework_around_us_take_a_model_around_one_of_ours() -> None:
    target = override(load_target("android-native"), ["formats=executorch,litert,bve"])
    assert list_refusals(target, make_vit()) == []
    assert list_refusals(target, build()) == ["bve"]
    for module in (nn.Linear(2, 2), nn.Sequential(make_vit(), make_vit())):
        assert list_refusals(target, module) == ["executorch", "litert", "bve"]


def test_what_may_compute_otherwise_is_not_ours() -> None:
    class Doubled(ViT):
        def forward(self, images: Tensor) -> Tensor:
            return 2 * super().forward(images)

    module = Doubled(image_size=SIZE, patch=8, dim=32, depth=1, head_dim=16, num_classes=5)
    changed = [make_vit() for _ in range(3)]
    changed[0].forward = lambda images: images  # type: ignore[method-assign]
    changed[1].norm = nn.Identity()  # type: ignore[assignment]
    changed[2].embedding = nn.Sequential(changed[2].embedding)  # type: ignore[assignment]
    assert list_inlays(nn.Sequential(module, *changed)) == []


def test_what_was_taken_out_is_put_back_whatever_happens() -> None:
    inside, images = make_vit(), torch.zeros(1, 3, SIZE, SIZE, device="meta")
    with taken_out(inside):
        assert inside(images).shape == (1, 5)  # the others' tensors are not on that device
    assert "forward" not in vars(inside)
    with pytest.raises(ZeroDivisionError), taken_out(inside):
        _ = 1 / 0
    assert "forward" not in vars(inside)


def test_nobody_can_run_what_stands_in_its_place() -> None:
    with pytest.raises(NotImplementedError):
        PROGRAM(torch.zeros(1, 3, 8, 8), 5)
    assert PROGRAM(torch.zeros(2, 3, 8, 8, device="meta"), 5).shape == (2, 5)


def test_images_are_recorded_as_ours_gets_them() -> None:
    model = build()
    given = record_images(model, "net", IMAGES)
    pixels = model.smooth(nn.functional.avg_pool2d((torch.from_numpy(IMAGES) + 1) * 127.5, 2))
    np.testing.assert_allclose(given, ((pixels - 127.5) / 127.5).detach().numpy(), atol=1e-5)
    assert "forward" not in vars(model.net)


def test_recorded_images_stay_as_they_were_given() -> None:
    def use(net: ViT, images: Tensor) -> Tensor:
        half = images.mul_(0.5)
        logits = net(half)
        half.mul_(100)
        return logits

    images = IMAGES.copy()
    assert np.array_equal(record_images(Using(use), "net", images), IMAGES / 2)
    assert np.array_equal(images, IMAGES)


@pytest.mark.parametrize(
    ("use", "how"),
    [
        (lambda net, x: net(x) + net(-x), "called 2 times for an image;"),
        (lambda net, x: net.head(net.encode(x)[:, 0]), "called 0 times for an image;"),
        (lambda net, x: net(images=x), "called 1 times for an image;"),
        (lambda net, x: net(torch.cat([x, x])), r"called 1 times for an image, with \[2, 3, 32, 32\]"),
    ],
)
def test_another_use_of_ours_is_refused(use: Callable[[ViT, Tensor], Tensor], how: str) -> None:
    model = Using(use)
    with pytest.raises(UserError, match=rf"net of Using is {how}.*expected once, with one float32 .*backend=xnnpack"):
        record_images(model, "net", IMAGES)
    assert "forward" not in vars(model.net)


# ---- the two graphs --------------------------------------------------------------------------------------------------


def test_the_graph_around_has_one_op_in_the_place_of_ours(graph: Graph) -> None:
    assert graph.inlay is not None
    nodes = graph.inlay.around.graph.find_nodes(op="call_function", target=PROGRAM)
    assert [(list(node.args[0].meta["val"].shape), node.args[1]) for node in nodes] == [([1, 3, 16, 16], 5)]
    assert {name.partition(".")[0] for name in graph.inlay.around.state_dict} == {"smooth", "hidden", "out"}
    macs = [
        sum(n for _, n in matrix_products(program))
        for program in (graph.exported, graph.inlay.exported, graph.inlay.around)
    ]
    assert macs[0] == macs[1] + macs[2]
    assert min(macs[1:]) > 0


def test_ours_computes_alone_what_it_computes_inside(graph: Graph) -> None:
    assert graph.inlay is not None
    model = graph.module
    assert isinstance(model, Around)
    logits = visit_layers(graph.inlay.exported, graph.inlay.images, lambda *_: None)
    behind = model.out(nn.functional.gelu(model.hidden(torch.from_numpy(logits)))).softmax(-1).detach().numpy()
    np.testing.assert_allclose(behind, visit_layers(graph.exported, IMAGES, lambda *_: None), atol=1e-5)


def test_layers_and_calibration_go_to_the_graph_that_they_are_of(graph: Graph) -> None:
    layers = {"net.layers.0.p.attn.q": "int8", "out": "int8"}
    graph = replace(graph, precision="int8", layers=layers, calibration=IMAGES)
    ours, rest = part_of(graph), rest_of(graph)
    assert ours.layers == {"layers.0.p.attn.q": "int8"}
    assert (ours.keep, ours.precision) == (0.5, "int8")
    assert graph.module is not None
    assert ours.module is graph.module.net
    assert ours.calibration is not None
    assert np.array_equal(ours.calibration, record_images(graph.module, "net", IMAGES))
    assert rest.layers == {"out": "int8"}
    assert part_of(replace(graph, calibration=None)).calibration is None
    whole = replace(graph, inlay=None)
    assert part_of(whole) is rest_of(whole) is whole


def test_keep_ratios_are_parted_each_as_it_was_captured() -> None:
    model = build()
    graphs = [rewrite(capture(model, SIZE, keep)) for keep in (1.0, 0.25)]
    parted = [part(graph, "net", IMAGES) for graph in graphs]
    for graph, keep in zip(parted, (1.0, 0.25), strict=True):
        model.keep = keep
        assert graph.inlay is not None
        given = record_images(model, "net", IMAGES)
        with torch.no_grad():
            expected = model.net(torch.from_numpy(given)).numpy()
        found = visit_layers(graph.inlay.exported, given, lambda *_: None)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_keep_ratio_that_is_not_handed_on_is_refused() -> None:
    dims = {"dim": 32, "little_dim": 16, "head_dim": 16, "little_head_dim": 16}
    model = nn.Sequential(BLViT(image_size=16, patch=8, depth=1, num_classes=3, **dims))
    model.keep = 0.5  # type: ignore[assignment]
    graph = rewrite(capture(model, 16, 0.25))
    with pytest.raises(UserError, match=r"keep 0\.25 of Sequential, whose 0 stays at 0\.5.*sets 0\.keep"):
        part(graph, "0", IMAGES[:, :, :16, :16])


class Aliased(nn.Module):
    """Its ViT under two names, of which the second is called."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make_vit()
        self.stages = nn.Sequential(self.net, nn.Linear(5, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(images)  # type: ignore[no-any-return]


class Listed(Using):
    """Its ViT in a list that PyTorch does not see."""

    def __init__(self) -> None:
        super().__init__(lambda net, x: x)
        self.hidden = [self.net]

    def forward(self, images: Tensor) -> Tensor:
        return self.hidden[0](images)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "model",
    [
        Aliased(),
        Listed(),
        Using(lambda net, x: net(x) * net.head.weight.mean()),  # reads a weight beside the call
        Using(lambda net, x: net(x).repeat(1, 2) + net.embedding.cls.mean()),
        Using(lambda net, x: torch.cat([net(y := x / 2), y.mean((2, 3))], 1)),  # what it is given is used elsewhere
    ],
)
def test_ours_is_found_by_whatever_name_it_is_called(model: nn.Module) -> None:
    graph = part(rewrite(capture(model, SIZE)), "net", IMAGES)
    assert graph.inlay is not None
    assert count_calls(graph.inlay.around) == 1
    logits = visit_layers(graph.inlay.exported, graph.inlay.images, lambda *_: None)
    monkeyed = iter(torch.from_numpy(logits))
    with torch.no_grad(), answering(model.net, lambda images: next(monkeyed)[None]):  # type: ignore[arg-type]
        found = np.concatenate([model(torch.from_numpy(image[None])).numpy() for image in IMAGES])
    np.testing.assert_allclose(found, visit_layers(graph.exported, IMAGES, lambda *_: None), atol=1e-5)
    linears = list_linears(graph)
    quantized = replace(graph, precision="int8", layers=dict.fromkeys(linears, "int8"))
    ours, rest = part_of(quantized), rest_of(quantized)
    assert set(ours.layers) == set(list_linears(replace(graph, exported=graph.inlay.exported)))
    assert set(rest.layers) == set(linears) - {layer for layer in linears if layer.endswith(tuple(ours.layers))}
    insert_quantization(rest)  # finds each
    read = {str(name) for name in graph.inlay.around.state_dict}
    assert read <= {"stages.1.weight", "stages.1.bias", "net.head.weight", "net.embedding.cls"}


def test_a_model_that_does_not_read_the_answer_is_refused() -> None:
    def use(net: ViT, images: Tensor) -> Tensor:
        net(images)
        return images.mean((2, 3))

    graph = rewrite(capture(Using(use), SIZE))
    with pytest.raises(UserError, match=r"graph of Using reads 0 answers of net; expected one.*backend=xnnpack"):
        part(graph, "net", IMAGES)


def test_an_image_that_is_none_of_the_models_input_can_be_parted() -> None:
    graph = rewrite(capture(Using(lambda net, x: net(torch.ones(1, 3, SIZE, SIZE)) * x.mean()), SIZE))
    inlay = part(graph, "net", IMAGES).inlay
    assert inlay is not None
    assert count_calls(inlay.around) == 1


def test_a_head_that_was_taken_off_gives_features() -> None:
    model = Using(lambda net, x: net(x))
    model.net.head = nn.Identity()  # type: ignore[assignment]
    graph = replace(part(rewrite(capture(model, SIZE)), "net", IMAGES), precision="fp32")
    (entry,) = from_bytes(lower_native([graph], load_target("android-native"), {}).data).entries
    assert entry.classes == 32


def test_a_part_says_nothing_of_pictures() -> None:
    """Else a camera's frame would go to it past what is in front of it."""
    graph = part(rewrite(capture(Using(lambda net, x: net(-x)), SIZE)), "net", IMAGES)
    words = {"preprocessing": "{}", "labels": "null"}
    lowered = lower_native([replace(graph, precision="fp32")], load_target("android-native"), words)
    assert from_bytes(lowered.data).metadata == {"labels": "null"}


def test_a_head_of_another_kind_is_refused() -> None:
    model = Using(lambda net, x: net(x))
    model.net.head = nn.Sequential(nn.Dropout(), nn.Linear(32, 5))  # type: ignore[assignment]
    graph = rewrite(capture(model, SIZE))
    with pytest.raises(
        UserError, match=r"a Sequential as the head of a ViT for our core; expected a Linear or an Iden"
    ):
        part(graph, "net", IMAGES)
