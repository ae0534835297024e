"""mmengine's metrics: thin shells over `pathzoo.evaluation.functional`."""

from pathzoo.evaluation.metrics.classification import ClassificationMetric

__all__ = ["ClassificationMetric"]
