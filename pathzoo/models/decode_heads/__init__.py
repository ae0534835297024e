"""Decoders on mmseg's BaseDecodeHead. Importing this package imports mmseg; `pathzoo.models` does so on demand."""

from pathzoo.models.decode_heads.unet_head import UNetHead

__all__ = ["UNetHead"]
