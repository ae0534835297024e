"""mmengine's metrics: thin shells over `pathzoo.evaluation.functional`."""

from pathzoo.evaluation.metrics.classification import ClassificationMetric
from pathzoo.evaluation.metrics.detection import BoxMetric
from pathzoo.evaluation.metrics.pretext import PretextMetric
from pathzoo.evaluation.metrics.segmentation import SegmentationMetric

__all__ = ["BoxMetric", "ClassificationMetric", "PretextMetric", "SegmentationMetric"]
