"""Networks and their parts, by kind. Importing this package registers them."""

from pathzoo.models.backbones import TimmBackbone

__all__ = ["TimmBackbone"]
