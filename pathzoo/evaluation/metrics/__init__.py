"""mmengine's metrics: thin shells over `pathzoo.evaluation.functional`."""

from pathzoo.evaluation.metrics.classification import ClassificationMetric
from pathzoo.evaluation.metrics.detection import BoxMetric
from pathzoo.evaluation.metrics.image_quality import ImageQuality
from pathzoo.evaluation.metrics.pretext import PretextMetric
from pathzoo.evaluation.metrics.segmentation import SegmentationMetric
from pathzoo.evaluation.metrics.slices import SliceMetric

__all__ = ["BoxMetric", "ClassificationMetric", "ImageQuality", "PretextMetric", "SegmentationMetric", "SliceMetric"]
