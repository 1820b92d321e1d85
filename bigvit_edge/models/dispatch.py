"""Token dispatch as one op, bve::dispatch: a layer's router, the permutation of both streams and the gate. PyTorch code
here defines it; in an ExecuTorch file a kernel of libbve_executorch runs it. It has no gradient.
"""

import torch
from torch import Tensor, library
from torch.nn.functional import layer_norm, linear

OPS = library.Library("bve", "DEF")  # type: ignore[no-untyped-call]
INPUTS = "Tensor x, Tensor z, Tensor gain, Tensor offset, Tensor weight, Tensor bias, float epsilon, int k"
OUTS = "Tensor(a!) x_out, Tensor(b!) z_out, Tensor(c!) gate, Tensor(d!) order"
OPS.define(f"dispatch({INPUTS}) -> (Tensor, Tensor, Tensor, Tensor)")  # type: ignore[no-untyped-call]
# What stands in an ExecuTorch file: results in memory that is planned. Nothing here runs it.
OPS.define(  # type: ignore[no-untyped-call]
    f"dispatch.out({INPUTS}, *, {OUTS}) -> (Tensor(a!), Tensor(b!), Tensor(c!), Tensor(d!))"
)


@library.impl(OPS, "dispatch", "CompositeExplicitAutograd")
def _dispatch(
    x: Tensor, z: Tensor, gain: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, epsilon: float, k: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x [B, N, C], z [B, N, c] and the router's layer norm [c] and Linear [1, c], [1] -> x and z with the k tokens of
    the highest scores first, CLS always among them, the others behind, both in rising order; the gate on the first k,
    [B, k, 1]; and the order, int32 [B, N]. Of equal scores the earlier token wins.
    """
    n = z.shape[1]
    score = linear(layer_norm(z, z.shape[2:], gain, offset, epsilon), weight, bias).flatten(1).softmax(1)  # [B, N]
    first = torch.cat([torch.full_like(score[:, :1], 2), score[:, 1:]], dim=1)  # a softmax is at most 1
    best = first.sort(dim=1, descending=True, stable=True).indices  # [B, N]
    order = torch.cat([part.sort(dim=1).values for part in (best[:, :k], best[:, k:])], dim=1)  # [B, N]
    odds = score.gather(1, order[:, :k]).unsqueeze(2) * n  # [B, k, 1]
    rows = order.unsqueeze(2)  # [B, N, 1]
    return x.gather(1, rows.expand_as(x)), z.gather(1, rows.expand_as(z)), 2 * odds / (1 + odds), order.int()


DISPATCH = torch.ops.bve.dispatch.default
