"""Our models as programs: a ViT or a big.LITTLE ViT, op by op.

Tokens stay in image order; the router's row lists say which of them an op reads and writes. The factors of attention
and of the exchange between the streams are folded into the Linears that they follow. After the last layer only CLS is
read, so the last layer leaves out all that leads to other tokens alone: by that an entry's macs are below
zoo.count_macs.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn

from bigvit_edge.artifact import name_method
from bigvit_edge.errors import UserError, name_type
from bigvit_edge.export.assembler import BIG, LITTLE, Assembler, Place, Rows, Table
from bigvit_edge.export.graph import PATCHES, Graph
from bigvit_edge.export.panels import PANEL
from bigvit_edge.export.program import BufferType, Entry, Fill, Patches, Program, Route
from bigvit_edge.models.blvit import BLViT, Layer, Ranking, order_tokens
from bigvit_edge.models.vit import Attention, Block, Embedding, ViT
from bigvit_edge.models.zoo import count_selected

IMAGE, LOGITS = 0, 1  # buffers that each entry has
CLS = Rows(1)


def emit_program(graphs: Sequence[Graph], kr: int, metadata: Mapping[str, str]) -> Program:
    """Write the program of one model's graphs, an entry each.

    The largest keep ratio comes first. kr: of the int8 packing. UserError if the model is not of this package, or is to
    be quantised in a way that a program cannot say.
    """
    table = Table(graphs, kr)
    entries = [_emit_entry(graph, table) for graph in sorted(graphs, key=lambda graph: -(graph.keep or 0))]
    return Program(graphs[0].precision, tuple(table.weights), tuple(entries), metadata)


def _emit_entry(graph: Graph, table: Table) -> Entry:
    model = graph.module
    if not isinstance(model, ViT | BLViT):
        met = f"a {type(model).__module__}.{type(model).__qualname__} for our core"
        raise UserError(met, "a ViT or big.LITTLE ViT of this package", "use litert or executorch with backend=xnnpack")
    ((image,), _) = graph.exported.example_inputs
    size, classes = image.shape[-1], find_head(model).out_features
    assembler = Assembler(table, size, classes)
    if isinstance(model, ViT):
        _emit_vit(assembler, model)
    else:
        _emit_blvit(assembler, model, graph.keep or model.keep)
    name = "main" if graph.keep is None else name_method(graph.keep)
    return Entry(name, graph.keep, size, classes, assembler.macs, tuple(assembler.buffers), tuple(assembler.ops))


def _emit_vit(to: Assembler, model: ViT) -> None:
    x, tokens = _emit_embedding(to, model.embedding)
    heads = _Attended(to, tokens, model.norm.normalized_shape[0])
    for i, block in enumerate(cast(Sequence[Block], model.layers)):
        at, read = f"layers.{i}", CLS if block is model.layers[-1] else tokens
        norm = to.add_norm(f"{at}.norm1", block.norm1)
        heads.project(f"{at}.attn", block.attn, x, tokens, read, norm)
        heads.attend(f"{at}.attn", block.attn, x, read)
        to.add_mlp(f"{at}.mlp", x, read, to.add_norm(f"{at}.norm2", block.norm2), block.mlp)
    _emit_head(to, model, x)


def _emit_blvit(to: Assembler, model: BLViT, keep: float) -> None:
    x, tokens = _emit_embedding(to, model.embedding)
    z = to.add_buffer(tokens.count, model.little.out_features)
    little = to.table.add_linear("little", {"little": model.little})
    to.add_linear("little", little, Place(x, tokens), Place(z, tokens))
    layers = _Layers(to, x, z, tokens, count_selected(keep, tokens.count))
    for i, layer in enumerate(cast(Sequence[Layer], model.layers)):
        layers.emit(f"layers.{i}", layer, last=layer is model.layers[-1])
    to.stage += 1
    up = to.table.add_linear("up", {"up": model.up})
    to.add_linear("up", up, Place(z, CLS), Place(x, CLS), accumulate=True)
    _emit_head(to, model, x)


def _emit_embedding(to: Assembler, embedding: Embedding) -> tuple[int, Rows]:
    """The buffer of tokens [N, C], and all its rows."""
    patches = embedding.patches
    (_, n, c), (patch, _) = embedding.position.shape, patches.kernel_size
    if to.size % patch:
        raise UserError(f"an image of {to.size} pixels", f"a multiple of the patch, {patch}, for bve")
    linear = nn.Linear(3 * patch**2, c, device="meta")
    assert isinstance(patches.bias, nn.Parameter)
    linear.weight, linear.bias = nn.Parameter(patches.weight.flatten(1)), patches.bias
    start = embedding.position[0].detach().clone()  # [N, C]
    start[0] += embedding.cls[0, 0].detach()
    pixels, x = to.add_buffer(n - 1, 3 * patch**2), to.add_buffer(n, c)
    to.add(PATCHES, Patches(IMAGE, pixels, patch))
    to.add("embedding.position", Fill(to.table.add_matrix("embedding.position", start), x))
    weight = to.table.add_linear(PATCHES, {PATCHES: linear})
    src, dst = Place(pixels, Rows(n - 1)), Place(x, Rows(n - 1, first=1))
    to.add_linear(PATCHES, weight, src, dst, accumulate=True)
    return x, Rows(n)


def find_head(model: ViT | BLViT) -> nn.Linear:
    """Find a model's head.

    Where that was taken off for the features (nn.Identity), it is a Linear that changes nothing. UserError if it is
    something else.
    """
    head: nn.Module = model.head
    if isinstance(head, nn.Linear):
        return head
    if type(head) is not nn.Identity:
        met = f"{name_type(head)} as the head of {name_type(model)} for our core"
        raise UserError(met, "a Linear or an Identity", "put it behind the model, or add --set backend=xnnpack")
    (dim,) = model.norm.normalized_shape
    same = nn.Linear(dim, dim, device="meta")
    same.weight, same.bias = nn.Parameter(torch.eye(dim)), nn.Parameter(torch.zeros(dim))
    return same


def _emit_head(to: Assembler, model: ViT | BLViT, x: int) -> None:
    weight = to.table.add_linear("head", {"head": find_head(model)})
    to.add_linear("head", weight, Place(x, CLS), Place(LOGITS, CLS), norm=to.add_norm("norm", model.norm))


class _Attended:
    """The buffers of one stream's attention: queries, keys and values of N tokens, and what comes of them."""

    def __init__(self, to: Assembler, tokens: Rows, dim: int, lane: int = BIG) -> None:
        self.to, self.dim, self.lane = to, dim, lane
        self.qkv, self.mixed = to.add_buffer(tokens.count, 3 * dim), to.add_buffer(tokens.count, dim)

    def project(self, at: str, attn: Attention, src: int, rows: Rows, read: Rows, norm: tuple[int, int]) -> None:
        """Project the given rows to keys and values, and queries.

        Queries are projected of the rows read afterwards; of all where a product cannot begin at the first key.
        """
        linears = {f"{at}.{part}": getattr(attn, part) for part in "qkv"}
        factor = torch.ones(3 * self.dim)
        factor[: self.dim] = (self.dim // attn.heads) ** -0.5
        weight = self.to.table.add_linear(f"{at}.qkv", linears, factor)
        q, kv, qkv = slice(self.dim), slice(self.dim, None), slice(None)
        for part, some in ((qkv, rows),) if read == rows or self.dim % PANEL else ((q, read), (kv, rows)):
            dst = Place(self.qkv, Rows(some.count), part.start or 0)
            self.to.add_linear(f"{at}.qkv", weight, Place(src, some), dst, norm=norm, outputs=part, lane=self.lane)

    def attend(self, at: str, attn: Attention, dst: int, read: Rows) -> None:
        """Add their attention to the rows that are read afterwards."""
        self.to.add_attention(at, self.qkv, read.count, attn.heads, self.mixed, self.lane)
        weight = self.to.table.add_linear(f"{at}.proj", {f"{at}.proj": attn.proj})
        src = Place(self.mixed, Rows(read.count))
        self.to.add_linear(f"{at}.proj", weight, src, Place(dst, read), accumulate=True, lane=self.lane)


class _Layers:
    """big.LITTLE layers over streams x and z, and the buffers that these share."""

    def __init__(self, to: Assembler, x: int, z: int, tokens: Rows, k: int) -> None:
        self.to, self.x, self.z, self.tokens, n = to, x, z, tokens, tokens.count
        self.list = to.add_buffer(1, k, BufferType.I32)
        self.skips = to.add_buffer(1, n - k, BufferType.I32) if k < n else None
        self.gate = to.add_buffer(1, k)
        self.selected = Rows(k, self.list) if k < n else tokens  # lists are in rising order
        self.p = _Attended(to, tokens, to.buffers[x].columns, BIG)
        self.e = _Attended(to, tokens, to.buffers[z].columns, LITTLE)

    def emit(self, at: str, layer: Layer, last: bool) -> None:
        """Write one layer.

        Only CLS is read of the last layer; it is first in every list.
        """
        to, x, z, table = self.to, self.x, self.z, self.to.table
        read_p, read_e = (CLS, CLS) if last else (self.selected, self.tokens)
        to.stage += 1
        self._route(f"{at}.router", layer)

        to.stage += 1
        norm_p, norm_e = to.add_norm(f"{at}.p.norm1", layer.p.norm1), to.add_norm(f"{at}.e.norm1", layer.e.norm1)
        self.p.project(f"{at}.p.attn", layer.p.attn, x, self.selected, read_p, norm_p)
        if self.skips is not None:
            skipped = Rows(self.tokens.count - self.selected.count, self.skips)
            linears = {f"{at}.k_from_e": layer.k_from_e, f"{at}.v_from_e": layer.v_from_e}
            dst = Place(self.p.qkv, Rows(skipped.count, first=self.selected.count), self.p.dim)
            weight = table.add_linear(f"{at}.kv_from_e", linears)
            to.add_linear(f"{at}.kv_from_e", weight, Place(z, skipped), dst, norm=norm_e)
        self.e.project(f"{at}.e.attn", layer.e.attn, z, self.tokens, read_e, norm_e)

        to.stage += 1
        self.p.attend(f"{at}.p.attn", layer.p.attn, x, read_p)
        self.e.attend(f"{at}.e.attn", layer.e.attn, z, read_e)

        to.stage += 1
        up = table.add_linear(f"{at}.up", {f"{at}.up": layer.up}, layer.gamma_up)
        down = table.add_linear(f"{at}.down", {f"{at}.down": layer.down}, layer.gamma_down)
        to.add_linear(f"{at}.up", up, Place(z, read_p), Place(x, read_p), accumulate=True)
        to.add_linear(f"{at}.down", down, Place(x, read_p), Place(z, read_p), accumulate=True)

        to.stage += 1
        norm_p, norm_e = to.add_norm(f"{at}.p.norm2", layer.p.norm2), to.add_norm(f"{at}.e.norm2", layer.e.norm2)
        to.add_mlp(f"{at}.p.mlp", x, read_p, norm_p, layer.p.mlp, self.gate)
        to.add_mlp(f"{at}.e.mlp", z, read_e, norm_e, layer.e.mlp, lane=LITTLE)

    def _route(self, at: str, layer: Layer) -> None:
        if layer.arrange is not order_tokens and not isinstance(layer.arrange, Ranking):
            raise UserError(f"{at} arranges tokens in a way of its own", "by score, which is all that bve has")
        score, table = layer.router.score, self.to.table
        if self.to.table.find_precision([f"{at}.score"]) not in ("fp32", "fp16"):
            raise UserError(f"{at} in int8", "routers in float for bve", "keep router in quant.keep_float")
        weight, bias = table.add_vector(f"{at}.weight", score.weight), table.add_vector(f"{at}.bias", score.bias)
        norm = self.to.add_norm(f"{at}.norm", layer.router.norm)
        self.to.macs += self.tokens.count * score.weight.numel()
        call = Route(self.z, *norm, weight, bias, self.selected.count, self.list, self.skips, self.gate)
        self.to.add(at, call)
