"""What a model of others must be, and what is said of one that is not."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bigvit_edge.errors import UserError
from bigvit_edge.models.contract import count_classes, explain_failure, settle


class Answering(nn.Module):
    """Logits [B, 4] of an image's mean colour, and then `answer` of them."""

    def __init__(self, answer: Callable[[Tensor], object] = lambda logits: logits) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.answer = answer

    def forward(self, images: Tensor) -> object:
        return self.answer(self.fc(images.mean((2, 3))))


def make_quantized() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 4))
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)  # type: ignore[no-any-return]


def make_exported() -> nn.Module:
    return torch.export.export(Answering(), (torch.zeros(1, 3, 8, 8),)).module()


def make_with(tensor: Tensor) -> nn.Module:
    model = Answering()
    model.register_buffer("table", tensor)
    return model


def make_int_parameter() -> nn.Module:
    model = Answering()
    model.codes = nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False)
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_quantized, r"0 of mine is quantised \(Linear\).*return the float model"),
        (make_int_parameter, r"codes of mine is a parameter of int8.*return the float model"),
        (
            lambda: nn.Sequential(nn.LazyLinear(4)),
            r"0.weight of mine is not initialised yet.*run the model on",
        ),
        (lambda: Answering().to("meta"), r"fc.weight of mine is on the meta device, where there are no numbers"),
        (lambda: make_with(torch.eye(3).to_sparse()), r"table of mine is sparse \(sparse_coo\).*to_dense\(\)"),
        (lambda: torch.jit.script(nn.Linear(3, 4)), r"^mine is TorchScript.*return the module that it was made of"),
        (make_exported, r"mine is a graph that torch.export made.*return the module that it was made of"),
    ],
)
def test_what_cannot_be_exported_is_named(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settle(make(), "mine")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_taken_in_float32_aloud(dtype: torch.dtype) -> None:
    model = Answering().to(dtype).train()
    expected = copy.deepcopy(model).float()
    notes = settle(model, "mine")
    assert notes == (f"2 of its tensors were {str(dtype)[6:]}; they are taken in float32",)
    assert not model.training
    image = torch.rand(1, 3, 8, 8)
    assert torch.equal(model(image), expected(image))


def test_a_complex_buffer_and_integer_buffers_stay() -> None:
    phases = torch.polar(torch.ones(3), torch.arange(3.0)).conj()
    model = make_with(phases)
    model.register_buffer("index", torch.arange(3))
    assert settle(model, "mine") == ()
    assert torch.equal(model.table, phases)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda y: {"logits": y, "aux": y}, r"answers one image with a dict of logits, aux; expected logits"),
        (lambda y: (y, y), r"answers one image with a tuple of 2"),
        (lambda y: y[0], r"answers one image with a tensor \[4\]"),
        (lambda y: y[:, :, None, None], r"answers one image with a tensor \[1, 4, 1, 1\]"),
        (lambda y: y.argmax(1, keepdim=True), r"answers with int64; expected logits in float32.*before any argmax"),
        (lambda y: y.bfloat16(), r"answers with bfloat16; expected logits in float32; end forward by .float\(\)"),
        (lambda y: y * 1j, r"answers with complex64"),
        (lambda y: y.to_sparse(), r"answers with sparse float32"),
        (lambda y: y @ torch.zeros(3, 2), r"on an image \[1, 3, 8, 8\] raised RuntimeError.*test_contract.py:\d+"),
    ],
)
def test_what_is_no_answer(answer: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        count_classes(Answering(answer), 8, "mine")


def test_probabilities_are_told_from_logits() -> None:
    assert count_classes(Answering(), 8, "mine") == (4, ())
    classes, (note,) = count_classes(Answering(lambda y: y.softmax(1)), 8, "mine")
    assert classes == 4
    assert "probabilities" in note
    assert count_classes(Answering(lambda y: y.sigmoid()), 8, "mine") == (4, ())
    assert count_classes(Answering(lambda y: y[:, :1].softmax(1)), 8, "mine") == (1, ())


def test_what_a_model_prints_is_kept_from_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    def chat(logits: Tensor) -> Tensor:
        print("hello")
        return logits

    count_classes(Answering(chat), 8, "mine")
    out, err = capsys.readouterr()
    assert out == ""
    assert "hello" in err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("operator torchvision::nms does not exist"),
            "ops of the installed torchvision do not load beside",
        ),
        (ModuleNotFoundError("No module named 'x'", name="x"), "install the package of x, or correct the source"),
        (ValueError("words " * 100), r"words words \.\.\.; expected a model; correct the source$"),
    ],
)
def test_the_fault_is_laid_where_it_is(error: Exception, message: str) -> None:
    try:
        raise OSError("something else") from error
    except OSError as e:
        chained = e
    expected = message if "torchvision" in message else "OSError"
    with pytest.raises(UserError, match=expected):
        raise explain_failure(chained, "importing mine")
    with pytest.raises(UserError, match=message):
        raise explain_failure(error, "importing mine")
