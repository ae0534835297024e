"""Stands in for mmcv's compiled ops.

Defect: `onedl-mmcv` built without a compiler (MMCV_WITH_OPS=0) has no `mmcv._ext`, and then `import mmcv.ops`, and with
it `import mmdet.models`, fails, although our configs call one op at most. The stand-in's `nms` is torchvision's; every
other op raises `MissingOpError` when it is called. Where a compiled mmcv is present, `install` leaves it alone.

`tests/compat/test_mmcv_ops.py` fails on the day when mmcv's own wheel brings the extension: then this file goes.
"""

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_NAME = "mmcv._ext"


class MissingOpError(RuntimeError):
    """A compiled op of mmcv was called that this environment does not have."""


def install() -> bool:
    """Puts the stand-in at `sys.modules['mmcv._ext']` unless the real extension can be found.

    Has to run before the first import of `mmcv.ops`. Calling it again is harmless.

    Returns:
        True where the stand-in is in place, False where mmcv has compiled ops of its own (or is not installed).
    """
    if _NAME in sys.modules:
        return isinstance(sys.modules[_NAME], _StandIn)
    mmcv = importlib.util.find_spec("mmcv")
    if mmcv is None or importlib.machinery.PathFinder.find_spec(_NAME, mmcv.submodule_search_locations) is not None:
        return False
    sys.modules[_NAME] = _StandIn()
    return True


class _StandIn(ModuleType):
    def __init__(self) -> None:
        super().__init__(_NAME, __doc__)
        # pkgutil.find_loader, by which mmcv asks whether ops exist, reads the spec.
        self.__spec__ = importlib.machinery.ModuleSpec(_NAME, loader=None)
        self.nms = _nms
        # mmengine's environment report asks for these two.
        self.get_compiler_version = lambda: "not compiled"
        self.get_compiling_cuda_version = lambda: "not available"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> Any:
            raise MissingOpError(
                f"mmcv's compiled op '{name}' is not here; build onedl-mmcv with MMCV_WITH_OPS=1 to use it"
            )

        return missing


def _nms(bboxes: Any, scores: Any, iou_threshold: float, offset: int = 0) -> Any:
    """torchvision's NMS with mmcv's signature. `offset` 1 counts the last pixel into a box's width and height."""
    import torchvision

    if offset:
        bboxes = bboxes + bboxes.new_tensor([0.0, 0.0, offset, offset])
    return torchvision.ops.nms(bboxes, scores, iou_threshold)
