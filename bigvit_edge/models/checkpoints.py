"""Checkpoints of others in this package's keys: timm and DeiT, the original ViT (.npz), transformers' ViT and DeiT.

They all hold one architecture under different names (Dosovitskiy et al. 2021). It fills a dense vit_*, or the P stream
of a blvit_*: embedding, P-blocks, norm and head. Keys that would change the function (layer scale, registers, a
representation layer in front of the head) are refused, never dropped.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from bigvit_edge.errors import UserError
from bigvit_edge.models.state_dicts import choose, convert_tensors, describe_keys
from bigvit_edge.models.weights import read_entries

OWN = "bigvit-edge"
TELLTALES = {  # a key that only this dialect has -> its name
    r"embedding\.patches\.weight": OWN,
    r"patch_embed\.proj\.weight": "timm or DeiT",
    r"(?:opt/target/|params/)?embedding/kernel": "the original ViT",
    r"(?:(?:vit|deit)\.)?embeddings\.patch_embeddings\.projection\.weight": "transformers",
}
RENAMES = {
    OWN: (),
    "timm or DeiT": (
        (r"cls_token", "embedding.cls"),
        (r"pos_embed", "embedding.position"),
        (r"patch_embed\.proj\.(.*)", r"embedding.patches.\1"),
        (r"blocks\.(.*)", r"layers.\1"),
        (r"(dist_token|head_dist\..*)", r"unused.\1"),
    ),
    "the original ViT": (
        (r"(?:opt/target/|params/)?(.*)", r"\1"),
        (r"cls", "embedding.cls"),
        (r"Transformer/posembed_input/pos_embedding", "embedding.position"),
        (r"embedding/(.*)", r"embedding.patches.\1"),
        (r"Transformer/encoder_norm/(.*)", r"norm.\1"),
        (r"Transformer/encoderblock_(\d+)/(.*)", r"layers.\1.\2"),
        (r"(layers\.\d+\.)LayerNorm_0/(.*)", r"\1norm1.\2"),
        (r"(layers\.\d+\.)LayerNorm_2/(.*)", r"\1norm2.\2"),
        (r"(layers\.\d+\.)MlpBlock_3/Dense_0/(.*)", r"\1mlp.fc1.\2"),
        (r"(layers\.\d+\.)MlpBlock_3/Dense_1/(.*)", r"\1mlp.fc2.\2"),
        (r"(layers\.\d+\.)MultiHeadDotProductAttention_1/([qkv])\w+/(.*)", r"\1attn.\2.\3"),
        (r"(layers\.\d+\.)MultiHeadDotProductAttention_1/out/(.*)", r"\1attn.proj.\2"),
        (r"head/(.*)", r"head.\1"),
        (r"(.*)\.(?:kernel|scale)", r"\1.weight"),
    ),
    "transformers": (
        (r"(?:vit|deit)\.(.*)", r"\1"),
        (r"embeddings\.cls_token", "embedding.cls"),
        (r"embeddings\.position_embeddings", "embedding.position"),
        (r"embeddings\.patch_embeddings\.projection\.(.*)", r"embedding.patches.\1"),
        (r"encoder\.layer\.(.*)", r"layers.\1"),
        (r"(layers\.\d+\.)layernorm_before\.(.*)", r"\1norm1.\2"),
        (r"(layers\.\d+\.)layernorm_after\.(.*)", r"\1norm2.\2"),
        (r"(layers\.\d+\.)attention\.attention\.([qkv])\w+\.(.*)", r"\1attn.\2.\3"),
        (r"(layers\.\d+\.)attention\.output\.dense\.(.*)", r"\1attn.proj.\2"),
        (r"(layers\.\d+\.)intermediate\.dense\.(.*)", r"\1mlp.fc1.\2"),
        (r"(layers\.\d+\.)output\.dense\.(.*)", r"\1mlp.fc2.\2"),
        (r"layernorm\.(.*)", r"norm.\1"),
        (r"(?:cls_)?classifier\.(.*)", r"head.\1"),
        (r"(embeddings\.(?:distillation|mask)_token|distillation_classifier\..*|pooler\..*)", r"unused.\1"),
    ),
}
PLACES = (
    r"embedding\.(cls|position)|(embedding\.patches|norm|head)\.(weight|bias)|unused\..*"
    r"|layers\.\d+\.(norm[12]|attn\.(q|k|v|qkv|proj)|mlp\.fc[12])\.(weight|bias)"
)


@dataclass(frozen=True)
class Checkpoint:
    """The Vision Transformer's tensors that a file holds.

    tensors: by this package's keys, those of a dense model unless the file is a blvit_*'s own; dialect: whose keys the
    file has; heads: of its attention, where it says; unused: its keys that no model here has a place for; notes: which
    of the file's weights were taken.
    """

    path: Path
    tensors: dict[str, Tensor]
    dialect: str
    heads: int | None
    unused: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def dense(self) -> bool:
        return "little.weight" not in self.tensors


def read_checkpoint(path: Path, key: str | None = None) -> Checkpoint:
    """Read a Vision Transformer's tensors in this package's keys.

    key: where in the file to look, dotted. UserError if the file cannot be read (see read_entries) or holds no Vision
    Transformer in keys known here.
    """
    found = read_entries(path)
    chosen, notes = choose(found, _is_known, path, key)
    dialect = next(
        (name for telltale, name in TELLTALES.items() if any(re.fullmatch(telltale, k) for k in chosen)), None
    )
    if dialect is None:
        raise UserError(
            f"{path} holds no Vision Transformer known here (it has {describe_keys(found)})",
            f"the keys of {', '.join(TELLTALES.values())}",
            "for another architecture take timm:NAME or package.module:build as MODEL, and the file as --weights",
        )
    tensors = convert_tensors(chosen, _is_known, path)
    try:
        return replace(_translate(path, tensors, dialect), notes=notes)
    except (IndexError, TypeError, ValueError, RuntimeError) as e:  # tensors of another rank than their keys promise
        met = f"{path} has a Vision Transformer's keys, but not its shapes ({type(e).__name__}: {e})"
        raise UserError(met, "a whole checkpoint", "check how the file was made") from e


def _is_known(key: str) -> bool:
    return any(re.fullmatch(PLACES, _rename(key, dialect)) for dialect in RENAMES)


def _translate(path: Path, found: dict[str, Tensor], dialect: str) -> Checkpoint:
    renamed = {_rename(key, dialect): tensor for key, tensor in found.items()}
    unused = tuple(key.removeprefix("unused.") for key in renamed if key.startswith("unused."))
    tensors = {key: tensor for key, tensor in renamed.items() if not key.startswith("unused.")}
    heads = None
    if dialect == "the original ViT":
        query = tensors.get("layers.0.attn.q.weight")  # [C, H, d]
        heads = query.shape[1] if query is not None and query.dim() == 3 else None
        tensors = {key: _transpose(key, tensor) for key, tensor in tensors.items()}
    if any("dist" in key for key in unused) and "embedding.position" in tensors:
        position = tensors["embedding.position"]  # [1, 2 + patches, C]: CLS, the distillation token, patches
        tensors["embedding.position"] = torch.cat([position[:, :1], position[:, 2:]], dim=1)
    return Checkpoint(path, _split_qkv(tensors), dialect, heads, unused)


def _rename(key: str, dialect: str) -> str:
    """A key that has no place here keeps its name, for an error to show."""
    renamed = key
    for pattern, by in RENAMES[dialect]:
        renamed = re.sub(rf"^{pattern}$", by, renamed)
    return renamed if re.fullmatch(PLACES, renamed) else key


def _split_qkv(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    split: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if ".attn.qkv." in key and len(tensor) % 3 == 0:
            split |= {key.replace("qkv", part): third for part, third in zip("qkv", tensor.chunk(3), strict=True)}
        else:
            split[key] = tensor
    return split


def _transpose(key: str, tensor: Tensor) -> Tensor:
    """JAX's kernels as PyTorch's weights: [in, out] -> [out, in]; [h, w, in, out] -> [out, in, h, w]; of attention
    [C, H, d] or [H, d, C] -> [C, C], and its biases [H, d] -> [C].
    """
    if ".attn." in key and key.endswith("bias"):
        return tensor.flatten()
    if ".attn." in key and tensor.dim() == 3:
        return tensor.flatten(0, 1).T if ".proj." in key else tensor.flatten(1).T
    if key == "embedding.patches.weight" and tensor.dim() == 4:
        return tensor.permute(3, 2, 0, 1)
    return tensor.T if key.endswith("weight") and tensor.dim() == 2 else tensor
