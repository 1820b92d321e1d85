"""Functions of one number in int8: XNNPACK reads them from a table of 256, though its partitioner knows them in float.

Between a dequantisation and a quantisation XNNPACK's graph has them of int8 as it has any op; its runtime makes the
table when the program is loaded.
"""

from typing import Any

from bigvit_edge.console import silenced

with silenced():
    from executorch.backends.xnnpack.partition.config import generic_node_configs as configs
    from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType

EITHER = {"supported_precision_types": lambda self: [ConfigPrecisionType.FP32, ConfigPrecisionType.STATIC_QUANT]}
# a rule of XNNPACK's partitioner -> the same in float and from a table
TABLES: dict[Any, Any] = {
    rule: type(f"{rule.__name__}InTables", (rule,), EITHER)
    for rule in (configs.GeluConfig, configs.HardswishConfig, configs.SigmoidConfig, configs.TanhConfig)
}
