"""Training recipes. The demo's: a dense teacher, then the big.LITTLE student by feature distillation.

Teacher: cross-entropy on CLS + 0.5 * cross-entropy on every patch (which digit, or background; "token labelling", Jiang
et al. 2021, arXiv 2104.10858, with the masks the generator knows). Student: its P-blocks start from the teacher's
blocks; cross-entropy + distill * (1 - cosine of its token features and the teacher's) + guide * cross-entropy of its
routers' scores. Both last terms weigh a token by what it matters to the teacher. Through the gate alone the routers go
astray: after 750 steps of such a run, two of the five layers gave the big path 17 and 19 % of the digits' patches at
keep 0.5, where chance gives 50, and the student had 41 % top-1 where an oracle's choice of tokens gave it 88.

Each step draws one keep ratio, so one set of weights serves all; step i sees the images of seed i, so a resumed run is
the same run.
"""

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from bigvit_edge.demo.accuracy import Score, measure_scores, normalize
from bigvit_edge.demo.digits import Batch, held_out, make_batch
from bigvit_edge.errors import UserError, describe_error, suggest
from bigvit_edge.folders import is_plain, resolve_folder
from bigvit_edge.models.blvit import BLViT, permute, restore
from bigvit_edge.models.load import build, load_model
from bigvit_edge.models.vit import ViT
from bigvit_edge.models.weights import load_weights, read_metadata, read_weights, save_weights
from bigvit_edge.models.zoo import find_card


@dataclass(frozen=True)
class Recipe:
    """The settings that teacher and student are trained by.

    Cycles: steps of `batch` images each. Rates: Muon's. decay: share of a cycle in which it falls to 0.
    """

    teacher: str
    student: str
    teacher_cycles: tuple[int, ...]
    student_cycles: tuple[int, ...]
    batch: int = 128
    teacher_plain_steps: int = 2000
    teacher_rate: float = 2e-3
    student_rate: float = 1e-3
    warmup: int = 100
    decay: float = 0.35
    weight_decay: float = 0.05
    token_labels: float = 0.5
    distill: float = 2.0
    guide: float = 0.5
    keeps: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    save_every: int = 250
    seed: int = 1


@dataclass(frozen=True)
class Phase:
    """One run of `fit`.

    It has a name, the steps of each cycle and a rate; backgrounds are varied after `plain_steps`.
    """

    name: str
    cycles: tuple[int, ...]
    rate: float
    plain_steps: int

    @property
    def steps(self) -> int:
        """Count the steps of all cycles."""
        return sum(self.cycles)


CHECKPOINTS = ("teacher.checkpoint", "student.checkpoint")
RECIPES = {"demo": Recipe("vit_demo", "blvit_demo", teacher_cycles=(5000, 2500), student_cycles=(2600, 1600))}


def find_recipe(name: str) -> Recipe:
    """Find the recipe of that name.

    UserError with the nearest names if there is none.
    """
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name!r}", f"one of {', '.join(RECIPES)}", suggest(name, RECIPES))
    return RECIPES[name]


def run_recipe(recipe: Recipe, folder: Path) -> list[Score]:
    """Run or resume a recipe in a folder.

    Leaves TEACHER.safetensors and STUDENT.safetensors there and returns the accuracy table.
    """
    folder = check_run(recipe, folder)
    folder.mkdir(parents=True, exist_ok=True)
    taught = train_teacher(recipe, folder)
    teacher, student = taught.teacher, train_student(recipe, taught, folder)
    for name, model in ((recipe.teacher, teacher), (recipe.student, student)):
        path = folder / f"{name}.safetensors"
        save_weights(model, path, {"recipe": repr(recipe)})
        load_weights(model, path)  # the table is of what was saved: half precision
    return measure_scores(teacher.eval(), student.eval(), held_out())


def check_run(recipe: Recipe, output: Path) -> Path:
    """Check a folder to run a recipe in; return its absolute path.

    UserError if a file there, under a name that the run would write, is not an earlier run's of the same recipe.
    """
    folder = resolve_folder(output)
    weights = (f"{name}.safetensors" for name in (recipe.teacher, recipe.student))
    for name in (*CHECKPOINTS, *weights):
        path = folder / name
        if os.path.lexists(path) and not (is_plain(path) and _is_own(path, recipe)):
            met = f"{path} was not written by this recipe"
            raise UserError(met, "what an earlier run of it left, or no such file", "choose another -o")
    return folder


def _is_own(path: Path, recipe: Recipe) -> bool:
    try:
        return read_metadata(path).get("recipe") == repr(recipe)
    except Exception:  # somebody's own file makes the reader raise anything
        return False


def evaluate_shipped(recipe: Recipe) -> list[Score]:
    """Measure the accuracy table of the weights that ship with the package."""
    teacher, student = load_model(recipe.teacher), load_model(recipe.student)
    assert isinstance(student, BLViT)
    return measure_scores(teacher, student, held_out())


class Teacher(nn.Module):
    """A dense ViT with a head that labels each patch.

    The label is a class or background. forward: images [B, 3, S, S] -> features [B, N, C] and patch logits [B, N-1,
    classes + 1]. The head is not shipped.
    """

    def __init__(self, teacher: ViT, seed: int) -> None:
        super().__init__()
        self.teacher = teacher
        torch.manual_seed(seed)
        self.patch_head = nn.Linear(teacher.head.in_features, teacher.head.out_features + 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        f = self.teacher.norm(self.teacher.encode(images))  # [B, N, C]
        return f, self.patch_head(f[:, 1:])


def train_teacher(recipe: Recipe, folder: Path) -> Teacher:
    """Train the dense teacher, with its patch-labelling head."""
    model = build(find_card(recipe.teacher))
    assert isinstance(model, ViT)
    teacher, background = Teacher(model, recipe.seed), model.head.out_features

    def loss_of(batch: Batch, step: int) -> Tensor:
        f, patch_logits = teacher(batch.images)
        labels = torch.where(batch.ink, batch.labels.unsqueeze(1), background)  # [B, N-1]
        on_patches = cross_entropy(patch_logits.float().flatten(0, 1), labels.flatten())
        return cross_entropy(model.head(f[:, 0]).float(), batch.labels) + recipe.token_labels * on_patches

    phase = Phase("teacher", recipe.teacher_cycles, recipe.teacher_rate, recipe.teacher_plain_steps)
    fit(teacher, loss_of, phase, recipe, folder / CHECKPOINTS[0])
    return teacher


def train_student(recipe: Recipe, teacher: Teacher, folder: Path) -> BLViT:
    """Train the big.LITTLE student, distilled at random keep ratios.

    Its routers are guided by what matters to the teacher.
    """
    student = build(find_card(recipe.student))
    assert isinstance(student, BLViT)
    take_from_dense(student, teacher.teacher)
    teacher.eval().requires_grad_(False)
    scores: list[Tensor] = []  # of one step, a layer each, in the order of the layer's input
    hooks = [
        student.get_submodule(f"layers.{i}.router").register_forward_hook(lambda _m, _i, score: scores.append(score))
        for i in range(len(student.layers))
    ]

    def loss_of(batch: Batch, step: int) -> Tensor:
        student.keep = random.Random(recipe.seed * 1_000_003 + step).choice(recipe.keeps)
        scores.clear()
        x, z, orders = student.encode(batch.images)
        f = restore(student.norm(x + student.up(z)), orders)  # [B, N, C], image order
        with torch.no_grad():
            wanted, patch_logits = teacher(batch.images)
            matters = weigh_tokens(patch_logits)  # [B, N]
        apart = 1 - cosine_similarity(f.float(), wanted.float(), dim=-1)  # [B, N]
        guide = guide_routers(scores, orders, matters)
        loss = cross_entropy(student.head(f[:, 0]).float(), batch.labels)
        return loss + recipe.distill * (apart * matters).sum(1).mean() + recipe.guide * guide

    phase = Phase("student", recipe.student_cycles, recipe.student_rate, plain_steps=0)
    fit(student, loss_of, phase, recipe, folder / CHECKPOINTS[1])
    for hook in hooks:
        hook.remove()
    return student


def weigh_tokens(patch_logits: Tensor) -> Tensor:
    """Weigh tokens by what they matter to the teacher.

    CLS 1, a patch its probability of not being background, 0.05 more for all, scaled to a sum of 1. [B, N-1, classes +
    1] -> [B, N]
    """
    foreground = 1 - patch_logits.float().softmax(-1)[..., -1]  # [B, N-1]
    weights = torch.cat([torch.ones_like(foreground[:, :1]), foreground], dim=1) + 0.05  # [B, N]
    return weights / weights.sum(1, keepdim=True)


def guide_routers(scores: list[Tensor], orders: list[Tensor], matters: Tensor) -> Tensor:
    """Compute the cross-entropy between routers' scores and what matters.

    Each layer's scores [B, N], what matters [B, N] (image order), mean over layers.
    """
    losses = []
    for score, order in zip(scores, orders, strict=True):
        losses.append(-(matters * (score.float() + 1e-8).log()).sum(1).mean())
        matters = permute(matters, order)  # the next layer sees the tokens in this order
    return torch.stack(losses).mean()


def take_from_dense(student: BLViT, dense: ViT) -> None:
    """Start the P stream from a dense ViT.

    Both have the same width and depth. Taken are embedding, blocks, norm and head.
    """
    student.embedding.load_state_dict(dense.embedding.state_dict())
    for i, block in enumerate(dense.layers):
        student.get_submodule(f"layers.{i}.p").load_state_dict(block.state_dict())
    student.norm.load_state_dict(dense.norm.state_dict())
    student.head.load_state_dict(dense.head.state_dict())


def fit(
    model: nn.Module, loss_of: Callable[[Batch, int], Tensor], phase: Phase, recipe: Recipe, checkpoint: Path
) -> None:
    """Run a phase, with matrix products in bfloat16.

    Resumes from the checkpoint if there is one.
    """
    optimizers = make_optimizers(model, recipe)
    start = read_checkpoint(checkpoint, model, optimizers, recipe) if checkpoint.exists() else 0
    model.train()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress, ThreadPoolExecutor(1) as ahead:  # the next batch is drawn beside the step
        task, recent = progress.add_task(phase.name, total=phase.steps, completed=start), 0.0
        upcoming = ahead.submit(draw_batch, recipe, phase, start)
        for step in range(start, phase.steps):
            batch, upcoming = upcoming.result(), ahead.submit(draw_batch, recipe, phase, step + 1)
            set_rate(optimizers, phase.rate * shape_rate(step, phase, recipe))
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(batch, step)
            model.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
                optimizer.step()
            recent += loss.item() / recipe.save_every
            progress.advance(task)
            if (step + 1) % recipe.save_every == 0 or step + 1 == phase.steps:
                write_checkpoint(checkpoint, model, optimizers, step + 1, recipe)
                progress.print(f"{phase.name} step {step + 1} of {phase.steps}, mean loss {recent:.4f}")
                recent = 0.0


def draw_batch(recipe: Recipe, phase: Phase, step: int) -> Batch:
    """Draw the images of one step, normalised.

    They depend on the recipe's seed and the step's number alone.
    """
    seed = recipe.seed * 10_000_000 + step
    batch = make_batch("train", recipe.batch, seed, vary=step >= phase.plain_steps)
    return Batch(normalize(batch.images), batch.labels, batch.ink)


def shape_rate(step: int, phase: Phase, recipe: Recipe) -> float:
    """Compute a step's share of the plateau's rate, in 0..1.

    Each cycle warms up, holds, and falls to 0.
    """
    for length in phase.cycles:
        if step < length:
            break
        step -= length
    return min((step + 1) / recipe.warmup, 1, (1 - step / length) / recipe.decay)


def make_optimizers(model: nn.Module, recipe: Recipe) -> tuple[torch.optim.Optimizer, ...]:
    """Make Muon for the layers' matrices, AdamW for everything else.

    Muon is orthogonalised momentum (Jordan et al. 2024).
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (matrices if "layers." in name and min(parameter.shape[-2:]) > 1 < parameter.dim() else others).append(
            parameter
        )
    return (
        torch.optim.Muon(matrices, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, weight_decay=0.0, fused=True),
    )


def set_rate(optimizers: tuple[torch.optim.Optimizer, ...], rate: float) -> None:
    """Set Muon to `rate`, AdamW to half of it."""
    for optimizer, factor in zip(optimizers, (1.0, 0.5), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * factor


def write_checkpoint(
    path: Path, model: nn.Module, optimizers: tuple[torch.optim.Optimizer, ...], step: int, recipe: Recipe
) -> None:
    """Write a training run's state as one safetensors file.

    It holds the model, the optimizers' moments, the next step and the recipe. It is written beside, then renamed.
    """
    tensors = {f"model.{key}": t.contiguous() for key, t in model.state_dict().items()}
    for name, p in model.named_parameters():
        for optimizer in optimizers:
            moments = optimizer.state.get(p, {})
            tensors |= {f"{moment}.{name}": t.contiguous() for moment, t in moments.items() if moment != "step"}
    part = path.with_name(f".bigvit-edge.{path.name}.part")  # which no file of the user's is called
    save_file(tensors, part, {"step": str(step), "recipe": repr(recipe)})
    part.replace(path)


def read_checkpoint(path: Path, model: nn.Module, optimizers: tuple[torch.optim.Optimizer, ...], recipe: Recipe) -> int:
    """Put model and optimizers back; return the next step.

    UserError if the checkpoint is of another recipe.
    """
    if not _is_own(path, recipe):
        raise UserError(f"{path} was written by another recipe", "a checkpoint of this one", "choose another -o")
    tensors, metadata = read_weights(path), read_metadata(path)
    try:
        return _restore(tensors, int(metadata["step"]), model, optimizers)
    except (KeyError, ValueError, RuntimeError) as e:
        met = f"{path} cannot be resumed ({describe_error(e)})"
        raise UserError(met, "a checkpoint as it was written", "choose another -o") from e


def _restore(
    tensors: dict[str, Tensor], step: int, model: nn.Module, optimizers: tuple[torch.optim.Optimizer, ...]
) -> int:
    model.load_state_dict({key.removeprefix("model."): t for key, t in tensors.items() if key.startswith("model.")})
    muon, adamw = optimizers
    for name, p in model.named_parameters():
        if f"momentum_buffer.{name}" in tensors:
            muon.state[p] = {"momentum_buffer": tensors[f"momentum_buffer.{name}"]}
        else:
            moments = {moment: tensors[f"{moment}.{name}"] for moment in ("exp_avg", "exp_avg_sq")}
            adamw.state[p] = {"step": torch.tensor(float(step)), **moments}
    return step
