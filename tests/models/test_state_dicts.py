"""Wrappers, prefixes and averaged weights: the model gets exactly the tensors that were put there for it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.errors import UserError
from bigvit_edge.models.state_dicts import choose, describe_keys, flatten
from bigvit_edge.models.weights import load_weights

State = dict[str, Tensor]


class Net(nn.Module):
    """Keys of several depths, one of them ('norm.weight') the end of another."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)) for _ in range(3)))
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 2)


def make_state(seed: int) -> State:
    torch.manual_seed(seed)
    return {key: torch.randn_like(tensor) for key, tensor in Net().state_dict().items()}


RAW, OTHER = make_state(1), make_state(2)


def test_two_tensors_of_one_key_are_refused_and_other_entries_are_not() -> None:
    one, two = torch.zeros(1), torch.ones(1)
    for content in ({"a.b": one, "a": {"b": two}}, {"a": {"b": two}, "a.b": one}, {"a.b": 1, "a": {"b": two}}):
        with pytest.raises(UserError, match=r"x.pth has two entries a.b, .*expected one tensor of a name"):
            flatten(content, Path("x.pth"))
    assert flatten({"a.b": one, "a": {"b": one}}, Path("x")) == {"a.b": one}
    assert flatten({"w": one, "lr.g": 1, "lr": {"g": 2}}, Path("x")).keys() == {"w", "lr.g"}


def put_under(prefix: str, state: State) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def read(content: object, path: Path, key: str | None = None) -> tuple[State, tuple[str, ...]]:
    """What a model holds after the file is loaded into it, and the notes."""
    torch.save(content, path / "w.pth")
    model = Net()
    notes = load_weights(model, path / "w.pth", key)
    return model.state_dict(), notes


def is_same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "prefix",
    [
        "module.", "_orig_mod.", "model.", "backbone.", "encoder.", "net.", "vit.", "base_model.model.", "timm_model.",
        "module._orig_mod.", "_orig_mod.module.", "model.model.backbone.", "student.",
        "teacher.", "image_encoder.trunk.",
    ],
)  # fmt: skip
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "anything"])
def test_any_prefix_is_taken_off_and_said(prefix: str, wrapper: str | None, tmp_path: Path) -> None:
    beside = {"criterion.weight": torch.ones(5), "projector.0.weight": torch.ones(2, 3), "n_averaged": torch.tensor(3)}
    state = put_under(prefix, RAW) | beside
    got, (note,) = read({wrapper: state, "epoch": 3} if wrapper else state, tmp_path)
    assert is_same(got, RAW)
    assert f"those under '{f'{wrapper}.' if wrapper else ''}{prefix[:-1]}'" in note
    assert "not used" in note


def test_plain_weights_need_no_word(tmp_path: Path) -> None:
    for content in (RAW, RAW | {"epoch": 3, "arch": "net"}):
        got, notes = read(content, tmp_path)
        assert is_same(got, RAW)
        assert notes == ()


@pytest.mark.parametrize(
    ("content", "raw"),
    [
        ({"state_dict": RAW, "state_dict_ema": OTHER}, "state_dict"),
        ({"model": RAW, "model_ema": put_under("module.", OTHER), "optimizer": {"state": {0: {"step": 1}}}}, "model"),
        ({"model": RAW, "ema": {"module": OTHER, "updates": 7}}, "model"),
        ({"student": RAW, "teacher": OTHER}, "student"),
        (put_under("online_model.", RAW) | put_under("ema_model.", OTHER), "online_model"),
        ({"net": {"vit": RAW}, "ema_state_dict": OTHER}, "net"),
    ],
)
def test_averaged_weights_are_taken_and_the_others_by_their_key(content: object, raw: str, tmp_path: Path) -> None:
    got, (note,) = read(content, tmp_path)
    assert is_same(got, OTHER)
    assert "the averaged ones" in note
    assert f"--weights-key {raw}" in note
    assert is_same(read(content, tmp_path, raw)[0], RAW)


def test_averaged_weights_that_lack_keys_are_not_taken_but_named(tmp_path: Path) -> None:
    partial = {key: tensor for key, tensor in OTHER.items() if "norm" not in key}
    got, (note,) = read({"state_dict": RAW, "ema": partial}, tmp_path)
    assert is_same(got, RAW)
    assert "not used: ema (14 tensors" in note


def test_two_that_fit_alike_are_not_chosen_between(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"several weights that fit: under a, b\.c.*--weights-key"):
        read({"a": RAW, "b": {"c": OTHER}}, tmp_path)
    assert is_same(read({"a": RAW, "b": {"c": OTHER}}, tmp_path, "b")[0], OTHER)
    decays = {f"ema.{decay}": put_under("", RAW) for decay in ("99", "999")}
    with pytest.raises(UserError, match=r"under ema.99, ema.999"):
        read({"state_dict": OTHER} | decays, tmp_path)


def test_a_head_beside_its_backbone_comes_along(tmp_path: Path) -> None:
    split = {key if key.startswith("head") else f"backbone.{key}": tensor for key, tensor in RAW.items()}
    got, (note,) = read({"state_dict": put_under("model.", split) | {"loss.weight": torch.ones(3)}}, tmp_path)
    assert is_same(got, RAW)
    assert "those under 'state_dict.model.backbone', and beside them head." in note


def test_what_would_change_the_function_is_unexpected_behind_any_prefix(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1 unexpected \(blocks.0.gamma\)"):
        read(put_under("module.", RAW | {"blocks.0.gamma": torch.ones(3)}), tmp_path)


def test_an_unknown_file_tells_its_keys(tmp_path: Path) -> None:
    content = {"epoch": 3, "weights": {"w1": torch.ones(2), "w2": torch.ones(2)}, "rng": torch.ones(1)}
    with pytest.raises(
        UserError, match=r"none of the 16 keys of Net; it has epoch \(an int\), rng, weights \(2 tensors"
    ):
        read(content, tmp_path)
    with pytest.raises(
        UserError, match=r"nothing under 'weihgts'.*weights \(2 tensors: w1, w2\).*did you mean weights"
    ):
        read(content, tmp_path, "weihgts")


def test_a_prefix_that_hardly_fits_stays(tmp_path: Path) -> None:
    few = {"other.head.weight": RAW["head.weight"], "body.weight": torch.ones(2)}
    with pytest.raises(UserError, match=r"none of the 16 keys"):
        read(few, tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.to(torch.int8), "head.weight of int8; expected floating ones"),
        (lambda t: t > 0, "head.weight of bool"),
        (lambda t: t.to(torch.complex64), "head.weight is complex"),
        (lambda t: t.to(torch.float8_e5m2), "head.weight is of float8_e5m2, whose scale"),
        (lambda t: t.to_sparse(), "head.weight is sparse"),
        (lambda t: t.to("meta"), r"head.weight is without its numbers \(on the meta device\)"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "head.weight is quantised"),
        (lambda t: torch.nested.nested_tensor([t, t]), "head.weight is nested"),
        (lambda t: t.tolist(), "head.weight is a list"),
        (lambda t: t[:0], r"head.weight \[0, 3\] instead of \[2, 3\]"),
        (lambda t: t * float("nan"), r"NaN or infinite: head.weight \(6 of 6\).*damaged"),
        (lambda t: t.double() * 1e300, r"NaN or infinite: head.weight \(6 of 6\)"),  # float32 cannot hold it
    ],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # PyTorch's, of its prototypes
def test_weights_that_are_no_numbers_are_named(spoil: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read({"state_dict": RAW | {"head.weight": spoil(RAW["head.weight"])}}, tmp_path)  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_fine(dtype: torch.dtype, tmp_path: Path) -> None:
    got, notes = read({key: tensor.to(dtype) for key, tensor in RAW.items()}, tmp_path)
    assert is_same(got, {key: tensor.to(dtype).float() for key, tensor in RAW.items()})
    assert notes == ()


def test_infinity_where_the_model_has_it_is_its_own(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    torch.save(model.state_dict(), tmp_path / "w.pth")
    assert load_weights(model, tmp_path / "w.pth") == ()


def test_a_file_that_never_ends_is_refused() -> None:
    deep: dict[object, object] = {}
    deep["a"] = deep["b"] = deep  # it holds itself
    assert flatten(deep, Path("w.pth")).keys() <= {key for key in flatten(deep, Path("w.pth")) if key.count(".") < 6}
    wide: dict[object, object] = {}
    for _ in range(5):
        wide = {str(i): wide for i in range(100)} | {"t": 0}
    with pytest.raises(UserError, match=r"more than 200000 entries"):
        flatten(wide, Path("w.pth"))


def test_keys_in_words() -> None:
    found = {"a.b": torch.ones(1), "a.c": torch.ones(1), "d": 3, "e": torch.ones(1)}
    assert describe_keys(found) == "a (2 tensors: b, c), d (an int), e"
    assert choose(found, lambda key: key == "b", Path("w"))[0].keys() == {"b", "c"}
