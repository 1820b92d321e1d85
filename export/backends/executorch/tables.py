"""Functions of one number in int8: XNNPACK reads them from a table of 256, though its partitioner knows them in float.

Between a dequantisation and a quantisation XNNPACK's graph has them of int8 as it has any op; its runtime makes the
table when the program is loaded. A GELU so takes a quarter of its time in float.
"""

from bigvit_edge.export.console import silenced

with silenced():
    from executorch.backends.xnnpack.partition.config.generic_node_configs import (
        GeluConfig,
        HardswishConfig,
        SigmoidConfig,
        TanhConfig,
    )
    from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType


class _InTables:
    def supported_precision_types(self) -> list[ConfigPrecisionType]:
        return [ConfigPrecisionType.FP32, ConfigPrecisionType.STATIC_QUANT]


class GeluTable(_InTables, GeluConfig):  # type: ignore[misc]
    """GELU, in float or from a table."""


class HardswishTable(_InTables, HardswishConfig):  # type: ignore[misc]
    """Hardswish, in float or from a table."""


class SigmoidTable(_InTables, SigmoidConfig):  # type: ignore[misc]
    """Sigmoid, in float or from a table."""


class TanhTable(_InTables, TanhConfig):  # type: ignore[misc]
    """Tanh, in float or from a table."""


TABLES = {GeluConfig: GeluTable, HardswishConfig: HardswishTable, SigmoidConfig: SigmoidTable, TanhConfig: TanhTable}
