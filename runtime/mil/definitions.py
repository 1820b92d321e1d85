"""What coremltools' own definitions of the ops say of inputs that a program leaves out."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bigvit_edge.console import silenced

with silenced():
    from coremltools.converters.mil.mil import types
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

OPSET = "CoreML"  # in front of a number, the opset of a function; its specification version is one more


def list_defaults(op: str, opset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """List every input of an op not given, with its default.

    A default is a tensor, a text, or None. opset: the function's, as 'CoreML7'; given: the op's inputs, by which some
    defaults go (a convolution's strides by the rank of x). Source: `input_spec` and `default_inputs` of coremltools'
    definition. LookupError on an op or opset that coremltools has not.
    """
    definition = SSAOpRegistry.core_ops[op][int(opset.removeprefix(OPSET)) + 1]
    known = definition.input_spec.input_types
    missing = [name for name, kind in known.items() if kind.optional and name not in given]
    if not missing:
        return {}
    asked = definition.__new__(definition)  # a definition asks itself for its inputs; it is never built
    vars(asked).update({name: _describe(given.get(name)) for name in known})
    defaults = dict(asked.default_inputs().items())
    return {name: _convert(defaults.get(name)) for name in missing}


def _describe(value: Any) -> SimpleNamespace | None:
    """A value as a definition sees it; floats are single, as our evaluation computes."""
    if not isinstance(value, Tensor):
        return None if value is None else SimpleNamespace(val=value)
    return SimpleNamespace(val=value, rank=value.dim(), shape=tuple(value.shape), dtype=types.fp32)


def _convert(default: Any) -> Any:
    if default is None or isinstance(default, str):
        return default
    value = torch.from_numpy(np.asarray(default))
    return value.float() if value.is_floating_point() else value if value.dtype == torch.bool else value.int()
