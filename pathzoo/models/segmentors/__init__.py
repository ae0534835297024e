"""Whole segmentation models on mmseg's EncoderDecoder. Importing this package imports mmseg."""

from pathzoo.models.segmentors.consistency import ConsistencySegmentor
from pathzoo.models.segmentors.strong_view import strong_view

__all__ = ["ConsistencySegmentor", "strong_view"]
