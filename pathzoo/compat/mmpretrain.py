"""Keeps `import mmpretrain.models` from importing all of mmdet and scikit-learn.

Defect: `mmpretrain.models.utils.res_layer_extra_norm` imports mmdet's backbones for one detection layer, which no
classifier uses; where mmdet is installed that costs about a quarter of the time from command to first iteration
(tools/benchmarks/startup.py). An empty stand-in is put in that module's place; `import mmdet` works as before.

`tests/compat/test_mmpretrain.py` fails on the day when mmpretrain no longer does it: then this file goes.
"""

import sys
from types import ModuleType

_NAME = "mmpretrain.models.utils.res_layer_extra_norm"


def install() -> bool:
    """Puts the stand-in into `sys.modules`, unless mmpretrain's models were imported before.

    Returns:
        Whether it is in place.
    """
    if _NAME in sys.modules:
        return isinstance(sys.modules[_NAME], _StandIn)
    sys.modules[_NAME] = _StandIn(_NAME, __doc__)
    return True


class _StandIn(ModuleType):
    ResLayerExtraNorm = None
