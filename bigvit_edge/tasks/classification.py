"""The class of a picture: logits, or the probabilities that a softmax makes of them, one for each class."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigvit_edge.artifact import Entry, Manifest, Runner
from bigvit_edge.errors import UserError
from bigvit_edge.measures import Accuracy, Confusion, Interval, Parity, bound_share
from bigvit_edge.signature import Array, Tensor
from bigvit_edge.target import Limits
from bigvit_edge.tasks import Answer, Expected, Measured, comparison
from bigvit_edge.tasks.comparison import CONVOLVED, choose_slack, name_limits

# names of answers, the last as Core ML calls them
OUTPUTS = LOGITS, PROBABILITIES, CLASS_PROBABILITIES = "logits", "probabilities", "classLabel_probs"
LABELLED, SCORES = True, True
HEADINGS = ("class", "probability")
SHOWN = 5  # classes of a picture
MOST_LABEL = 80  # letters of a label in a table
DOES, ORDER = "Classifies pictures", "before the softmax, in the order of the metadata's labels"
MEANINGS = {LOGITS: "Logit of each class.", PROBABILITIES: "Probability of each class."}
COLUMNS = ("cosine", "smallest", "centred", "top-1 agrees", "accuracy")
MOST_CLASSES = 1_000_000  # of a model: more is taken for a mistake
FAINTEST = np.float32(np.finfo(np.float32).tiny)  # of a probability whose logarithm is asked
WORST = 10  # classes named in a confusion

# Which limit the mean cosine of a precision is held to, and its share of equal top-1 if not top1_agreement.
COSINES = {
    "fp16": "fp16_cosine",
    "int8": "int8_cosine",
    "int8-static": "static_cosine",
    CONVOLVED: "convolved_cosine",
    "int4": "int4_cosine",
    "mixed": "mixed_cosine",
}
AGREEMENTS = {"int8-static": "static_agreement", CONVOLVED: "convolved_agreement", "int4": "int4_agreement"}


def check_answer(answer: Tensor, source: str) -> None:
    """Check that a model answers with logits [1, classes].

    UserError otherwise.
    """
    if len(answer.shape) != 2 or answer.shape[0] != 1 or not answer.shape[1]:
        met = f"{source} answers one image with a tensor {list(answer.shape)}"
        do = "wrap it in a module that returns these alone, or add --task features"
        raise UserError(met, "logits [1, classes]", do)


def note_answers(first: Array, second: Array) -> tuple[str, ...]:
    """Note that a model answers two images with probabilities already."""
    if first.shape[1] == 1 or not all(bool((a >= 0).all()) and abs(float(a.sum()) - 1) < 1e-3 for a in (first, second)):
        return ()
    note = "the model answers with probabilities, as after a softmax; `run` takes a softmax of them once more"
    return (f"{note}: leave the model's own out",)


def check_entry(entry: Entry) -> None:
    """Check what a manifest says of a file of this task.

    ValueError unless it takes one image, and answers with one number a class.
    """
    shapes = [tensor.shape for tensor in (*entry.inputs, *entry.outputs)]
    if len(shapes) != 2 or len(shapes[1]) != 2:
        raise ValueError(f"inputs and outputs of shapes {shapes}, where one image and its logits are expected")
    if shapes[1][0] != 1 or shapes[1][1] > MOST_CLASSES:
        raise ValueError(f"outputs of shape {shapes[1]}, where logits of at most {MOST_CLASSES} classes are expected")
    if entry.outputs[0].name not in OUTPUTS:
        raise ValueError(f"an output of {entry.outputs[0]}, where one of {', '.join(OUTPUTS)} is expected")
    if entry.labels is not None and len(entry.labels) != shapes[1][1]:
        raise ValueError(f"{len(entry.labels)} labels for an output of shape {shapes[1]}")


def is_scored(runner: Runner) -> bool:
    """Tell whether a file answers with probabilities.

    It does where it ends with a softmax of ours.
    """
    return runner.signature.outputs[0].name in (PROBABILITIES, CLASS_PROBABILITIES)


def are_probabilities(answers: Array) -> bool:
    """Tell whether answers [n, classes] are those of a softmax."""
    return bool((answers >= 0).all() and np.allclose(answers.sum(1), 1, atol=1e-3))


def read_answer(run: Runner, image: NDArray[Any]) -> Array:
    """Run an image to logits [1, classes].

    Of probabilities to what their softmax is given, where the file can be asked for that, else to their logarithms,
    which are logits less a number an image.
    """
    if not is_scored(run):
        return run(image)
    if run.before_softmax is not None:
        (answer,) = run.before_softmax({run.signature.inputs[0].name: image}).values()
        return answer
    return np.log(np.maximum(run(image), FAINTEST))


@dataclass(frozen=True)
class Guess:
    """A class and its softmax probability in 0..1."""

    label: str
    probability: float

    def as_cells(self) -> tuple[str, str]:
        """Write it as cells, the label in MOST_LABEL letters at most."""
        label = self.label if len(self.label) <= MOST_LABEL else f"{self.label[: MOST_LABEL - 1]}…"
        return label, f"{self.probability:.2%}"


def list_rows(answer: Array, labels: Sequence[str] | None) -> list[Guess]:
    """List the most probable classes of logits [1, classes], best first."""
    logits = answer[0].astype(np.float64)
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    best = np.argsort(-probabilities, kind="stable")[:SHOWN]
    return [Guess(labels[i] if labels else f"class {i}", float(probabilities[i])) for i in best]


def measure(run: Runner | Answer, images: Iterable[NDArray[Any]], expected: Expected) -> Measured:
    """Run a file on images, one by one, and compare.

    A file of probabilities is compared by what its softmax is given; where that cannot be asked for by their
    logarithms, both sides about their mean over the classes, since these do not say by what number all logits of an
    image could be larger; where PyTorch answers with probabilities, by those.
    """
    answer, centres = run, False
    if isinstance(run, Runner) and is_scored(run) and not are_probabilities(expected.answers):
        answer, centres = (lambda image: read_answer(run, image)), run.before_softmax is None
    logits = np.concatenate([answer(image) for image in images])
    sides = (logits, expected.answers)
    said, told = (values - values.mean(1, keepdims=True) for values in sides) if centres else sides
    return Measured(compare(said, told), _score(logits, expected), _confuse(logits, expected))


def compare(said: Array, expected: Array) -> Parity:
    """Compare two sets of logits [n, classes].

    A file that answers with NaN agrees with nothing.
    """
    finite = np.isfinite(said).all()
    agreement = float((said.argmax(1) == expected.argmax(1)).mean()) if finite else 0.0
    parity = comparison.compare(said, expected)
    return replace(parity, top1_agreement=agreement, top1_interval=bound_share(agreement, len(said)))


def judge(parity: Parity, precision: str, limits: Limits, trained: bool = True, keep: float | None = None) -> list[str]:
    """List where a file falls short of its limits, in words.

    Empty if it does not. trained: its weights are not random.
    """
    slack = choose_slack(precision, limits, keep)
    faults = []
    for what, value, name in () if parity.span == 0 else _list_cosines(parity, precision, trained):
        least = 1 - (1 - getattr(limits, name)) * slack
        if value < least:
            faults.append(f"{what} {value:.5f}, limit {least:g} ({name_limits(name, slack)})")
    faults += comparison.judge_centred(parity, precision, limits, keep)
    if trained and parity.centred_cosine is not None:
        name = AGREEMENTS.get(precision, "top1_agreement")
        agreement = parity.top1_agreement or 0.0
        least, (_, high) = 1 - (1 - getattr(limits, name)) * slack, bound_share(agreement, parity.images)
        if high < least:
            share = f"{agreement:.1%}, at most {high:.1%} with 95 % confidence"
            faults.append(f"top-1 agreement {share}, limit {least:.1%} ({name_limits(name, slack)})")
    if (precision == "fp32" or parity.span == 0) and parity.max_abs > limits.fp32_max_abs * (parity.span or 1):
        faults.append(_explain_difference(parity, limits))
    return faults


def _list_cosines(parity: Parity, precision: str, trained: bool) -> list[tuple[str, float, str]]:
    """The cosines of whole logits that a file is held to: in words, as met, and by which limit."""
    if precision == "fp32":
        return [("smallest cosine", parity.cosine_min, "fp32_cosine")]
    if not trained:
        name = "untrained_int4_cosine" if precision == "int4" else "untrained_cosine"
        return [("smallest cosine", parity.cosine_min, name)]
    mean = ("mean cosine", parity.cosine_mean, COSINES[precision])
    return [mean] if precision == "int4" else [mean, ("smallest cosine", parity.cosine_min, "cosine_min")]


def _explain_difference(parity: Parity, limits: Limits) -> str:
    if not parity.span:
        return f"largest difference {parity.max_abs:.2g}, limit {limits.fp32_max_abs:g} (limits.fp32_max_abs)"
    share = f"{parity.max_abs / parity.span:.2g} of the span of PyTorch's logits, {parity.span:.3g}"
    return f"largest difference {parity.max_abs:.2g}, {share}; limit {limits.fp32_max_abs:g} (limits.fp32_max_abs)"


def _score(logits: Array, expected: Expected) -> Accuracy | None:
    if expected.labels is None:
        return None
    labelled = expected.labels >= 0
    labels = expected.labels[labelled]
    right, own = (float((values.argmax(1)[labelled] == labels).mean()) for values in (logits, expected.answers))
    return Accuracy(right, own, len(labels), bound_share(right, len(labels)))


def _confuse(logits: Array, expected: Expected) -> tuple[Confusion, ...]:
    """The classes of which most pictures, by their share, are taken for others."""
    labels, names = expected.labels, expected.names
    if labels is None or names is None:
        return ()
    found = []
    for number in np.unique(labels[labels >= 0]).tolist():
        said = logits.argmax(1)[labels == number]
        wrong, times = np.unique(said[said != number], return_counts=True)
        if len(wrong):
            other = int(wrong[times.argmax()])
            right = int((said == number).sum())
            name = names.get(number, f"class {number}"), names.get(other, f"class {other}")
            found.append(Confusion(name[0], len(said), right, name[1], int(times.max())))
    return tuple(sorted(found, key=lambda c: (c.right / c.images, -c.images))[:WORST])


def list_cells(parity: Parity | None, accuracy: Accuracy | None) -> tuple[str, ...]:
    """List a table's cells under COLUMNS; dashes where nothing was measured."""
    if parity is None:
        return ("–",) * len(COLUMNS)
    return (
        *comparison.list_cells(parity),
        _share_cell(parity.top1_agreement or 0.0, parity.top1_interval),
        _share_cell(accuracy.top1, accuracy.top1_interval) if accuracy else "–",
    )


def _share_cell(share: float, interval: Interval | None) -> str:
    """Such as 99.5% (98.8–99.8)."""
    return f"{share:.1%}" + (f" ({interval[0] * 100:.1f}–{interval[1] * 100:.1f})" if interval else "")


def explain_columns(manifest: Manifest) -> Iterator[str]:
    """Explain what the columns mean, and on what images they are."""
    methods = [method for entry in manifest.artifacts for method in entry.methods]
    images = next((str(m.parity.images) for m in methods if m.parity), "no")
    yield f"cosine (mean and smallest) and top-1 agreement: with PyTorch fp32, on {images} images"
    yield "centred: cosine of the logits without what those of all images have in common; ranges: 95 % confidence"
    expected = {m.keep: f"{m.accuracy.pytorch_top1:.1%}" for m in methods if m.accuracy}
    if expected:
        points = ", ".join(share if keep is None else f"{share} at keep {keep:g}" for keep, share in expected.items())
        same = "the same held-out images" if manifest.pictures is None else f"the {manifest.pictures.labelled} labelled"
        yield f"accuracy: on {same}, where PyTorch fp32 has {points}"
    if not manifest.trained:
        yield "weights: random, so no top-1 is asked, and the smallest cosine is held to limits.untrained_cosine"
