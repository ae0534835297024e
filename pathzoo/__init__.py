"""pathzoo: a computational-pathology model zoo on OpenMMLab's engine.

The public names load on first use, so that `import pathzoo` and `pathzoo --help` cost no torch import.
"""

import importlib
from typing import Any

from pathzoo._version import __version__

#: public name -> module that defines it
_EXPORTS = {
    "get_model": "pathzoo.zoo.load",
    "list_models": "pathzoo.zoo.load",
    "verify_model": "pathzoo.zoo.verify",
    "publish_model": "pathzoo.zoo.publish",
    "predict": "pathzoo.apis.predict",
    "train": "pathzoo.apis.train",
    "test": "pathzoo.apis.test",
    "Slide": "pathzoo.wsi.slide",
    "PathzooError": "pathzoo.errors",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'pathzoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
