"""What has to happen once in a process before a config is read or a model is built."""

import os
import warnings


def setup() -> None:
    """Puts the compatibility parts in place and loads the installed plug-ins; harmless when repeated."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    # mmcv warns at import of every op it was built without; pathzoo.compat.mmcv_ops says what that means for us.
    warnings.filterwarnings("ignore", message="Fail to import")
    from pathzoo import compat
    from pathzoo.plugins import load_plugins

    compat.install()
    load_plugins()
