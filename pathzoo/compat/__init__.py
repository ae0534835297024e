"""The only code that knows an upstream defect: one small file for each, named after the package it mends.

Nothing happens on import. Each file's `install()` mends what it names, and does nothing where the defect is absent.
"""


def install() -> None:
    """Installs every part; has to run before the first import of a host's models, and is harmless when repeated."""
    from pathzoo.compat import mmcv_ops, mmpretrain

    mmcv_ops.install()
    mmpretrain.install()
