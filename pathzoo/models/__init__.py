"""Networks and their parts, by kind. Importing this package registers them."""

from pathzoo.models.backbones import TimmBackbone
from pathzoo.models.rule_based import BlobDetector, ColorThresholdClassifier, ColorThresholdSegmenter

__all__ = ["BlobDetector", "ColorThresholdClassifier", "ColorThresholdSegmenter", "TimmBackbone"]
