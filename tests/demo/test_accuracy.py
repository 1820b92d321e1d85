"""Where the router looks, and what chance and an oracle would have chosen."""

import torch

from bigvit_edge.demo.accuracy import OracleChoice, RandomChoice, Score, arranged, measure_scores, normalize
from bigvit_edge.demo.digits import held_out, make_batch
from bigvit_edge.models.blvit import BLViT, selected_tokens
from bigvit_edge.models.load import build, load_model
from bigvit_edge.models.zoo import CARDS, count_selected


def select(model: BLViT, choice: object, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), arranged(model, choice):
        orders = model.encode(images)[2]
    return selected_tokens(orders, count_selected(model.keep, 65))[:, :, 1:]  # [layers, B, patches]


def test_the_oracle_takes_all_of_the_digit_in_every_layer() -> None:
    model, batch = build(CARDS["blvit_demo"]).eval(), make_batch("held_out", 8, 0)
    selected = select(model, OracleChoice(batch.ink), normalize(batch.images))
    assert (selected | ~batch.ink).all()


def test_chance_takes_its_share_of_the_digit() -> None:
    model, batch = build(CARDS["blvit_demo"]).eval(), make_batch("held_out", 200, 0)
    selected = select(model, RandomChoice(0), normalize(batch.images))
    share = (selected & batch.ink).sum((1, 2)) / batch.ink.sum()  # [layers]
    assert (share - 0.5).abs().max() < 0.05
    assert not torch.equal(selected[0], selected[1])


def test_a_replaced_choice_is_put_back() -> None:
    model = build(CARDS["blvit_demo"]).eval()
    before = [layer.arrange for layer in model.layers]
    with arranged(model, RandomChoice(0)):
        assert model.layers[0].arrange is not before[0]
    assert [layer.arrange for layer in model.layers] == before


def test_table_of_the_shipped_weights() -> None:
    """Guards the shipped files against being mixed up or lost; the README's figures come from all 1,000 images."""
    batch = held_out()
    small = type(batch)(batch.images[:200], batch.labels[:200], batch.ink[:200])
    rows = measure_scores(load_model("vit_demo"), load_model("blvit_demo"), small)
    by_name: dict[tuple[str, float | None], Score] = {(row.name, row.keep): row for row in rows}
    assert by_name["vit_demo (dense teacher)", None].top1 > 0.9
    assert by_name["blvit_demo", 0.5].top1 > by_name["router replaced by chance", 0.5].top1
    assert by_name["router replaced by an oracle", 0.25].ink > by_name["router replaced by chance", 0.25].ink
    assert by_name["blvit_demo", 1.0].ink == 1.0
