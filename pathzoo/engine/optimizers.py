"""Optimizers for models whose parts are trained apart, as generator and discriminator are."""

from pathzoo import compat
from pathzoo.compat import mmagic

compat.install()
mmagic.install()

from mmagic.engine.optimizers import MultiOptimWrapperConstructor  # noqa: E402

__all__ = ["MultiOptimWrapperConstructor"]
