"""The recipe on a few steps: it learns, it resumes, it takes what the dense teacher knows."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bigvit_edge.errors import UserError
from bigvit_edge.models.load import build
from bigvit_edge.models.weights import read_weights
from bigvit_edge.models.zoo import CARDS
from bigvit_edge.train import (
    RECIPES,
    find_recipe,
    guide_routers,
    run_recipe,
    take_from_dense,
    train_teacher,
    weigh_tokens,
)  # fmt: skip

TINY = replace(
    RECIPES["demo"], teacher_cycles=(2, 2), teacher_plain_steps=2, student_cycles=(3,), batch=4, warmup=2, save_every=2
)


def test_train_leaves_weights_and_a_table(tmp_path: Path) -> None:
    rows = run_recipe(TINY, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "teacher.checkpoint", "student.checkpoint", "vit_demo.safetensors", "blvit_demo.safetensors",
    }  # fmt: skip
    assert len(rows) == 9
    start = build(CARDS["blvit_demo"]).layers[0].router.score.weight
    assert not torch.equal(read_weights(tmp_path / "blvit_demo.safetensors")["layers.0.router.score.weight"], start)


def test_a_resumed_run_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train_teacher(TINY, tmp_path / "whole") if (tmp_path / "whole").mkdir() is None else None
    broken = tmp_path / "broken"
    broken.mkdir()

    import bigvit_edge.train as module

    def interrupt(split: str, count: int, seed: int, vary: bool) -> object:
        if seed % 10_000_000 == 3:
            raise KeyboardInterrupt
        return make(split, count, seed, vary)

    make = module.make_batch
    monkeypatch.setattr(module, "make_batch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_teacher(TINY, broken)
    monkeypatch.setattr(module, "make_batch", make)
    resumed = train_teacher(TINY, broken)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_a_checkpoint_of_another_recipe_is_not_resumed(tmp_path: Path) -> None:
    train_teacher(TINY, tmp_path)
    with pytest.raises(UserError, match=r"teacher.checkpoint was written by another recipe"):
        train_teacher(replace(TINY, seed=2), tmp_path)


@pytest.mark.parametrize("name", ["teacher.checkpoint", "student.checkpoint", "vit_demo.safetensors"])
@pytest.mark.parametrize("kind", ["pickle", "other weights", "text", "empty", "device"])
def test_a_run_writes_over_nothing_that_it_has_not_written(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    match kind:
        case "pickle":
            torch.save({"a": torch.zeros(1)}, path)
        case "other weights":
            save_file({"a": torch.zeros(1)}, path, {"recipe": "mine"})
        case "device":
            path.symlink_to("/dev/zero")
        case _:
            path.write_text("my notes" if kind == "text" else "")
    before = path.readlink() if path.is_symlink() else path.read_bytes()
    with pytest.raises(UserError, match=rf"{name} was not written by this recipe.*choose another -o"):
        run_recipe(TINY, tmp_path)
    assert [*tmp_path.iterdir()] == [path]
    assert (path.readlink() if path.is_symlink() else path.read_bytes()) == before


def test_a_checkpoint_that_is_cut_or_of_another_model(tmp_path: Path) -> None:
    for metadata in ({"recipe": repr(TINY)}, {"recipe": repr(TINY), "step": "2"}):
        save_file({"model.a": torch.zeros(1)}, tmp_path / "teacher.checkpoint", metadata)
        with pytest.raises(UserError, match=r"teacher.checkpoint cannot be resumed"):
            run_recipe(TINY, tmp_path)


def test_the_student_starts_from_the_teachers_blocks() -> None:
    student, dense = build(CARDS["blvit_demo"]), build(CARDS["vit_demo"])
    torch.nn.init.normal_(dense.layers[2].mlp.fc1.weight)
    take_from_dense(student, dense)
    assert torch.equal(student.layers[2].p.mlp.fc1.weight, dense.layers[2].mlp.fc1.weight)
    assert torch.equal(student.head.weight, dense.head.weight)


def test_with_all_tokens_kept_and_a_uniform_router_the_fresh_student_is_its_teacher() -> None:
    """Gates are 1 there and the exchange starts at 1e-4, so nothing of the dense model is lost at the start."""
    student, dense = build(CARDS["blvit_demo"]), build(CARDS["vit_demo"])
    take_from_dense(student, dense)
    torch.nn.init.zeros_(student.up.weight)
    for layer in student.layers:
        torch.nn.init.zeros_(layer.router.score.weight)
    student.keep = 1.0
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(student(images), dense(images), atol=1e-3, rtol=0)


def test_what_matters_is_cls_and_what_the_teacher_sees_in_front() -> None:
    logits = torch.tensor([[[9.0, 0, 0], [0, 0, 9.0]]])  # the first patch is class 0, the second background
    matters = weigh_tokens(logits)
    assert matters.sum().item() == pytest.approx(1)
    assert matters[0, 0] > matters[0, 1] > 10 * matters[0, 2]


def test_routers_are_guided_in_the_order_they_see() -> None:
    matters = torch.tensor([[0.7, 0.1, 0.2]])
    order = torch.tensor([[0, 2, 1]])
    moved = torch.tensor([[0.7, 0.2, 0.1]])
    lowest = -(matters * matters.log()).sum()  # the entropy: scores equal to what matters, in each layer's own order
    torch.testing.assert_close(guide_routers([matters, moved], [order, order], matters), lowest)
    assert guide_routers([matters, matters], [order, order], matters) > lowest + 0.01


def test_unknown_recipe() -> None:
    with pytest.raises(UserError, match=r"unknown recipe 'dem'.*did you mean demo"):
        find_recipe("dem")
