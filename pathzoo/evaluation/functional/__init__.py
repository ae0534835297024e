"""Arrays in, numbers out: numpy alone, no torch, no files."""

from pathzoo.evaluation.functional.bootstrap import (
    Interval,
    bootstrap_interval,
    bootstrap_replicates,
    cluster_index,
    percentile_interval,
    resample_counts,
)
from pathzoo.evaluation.functional.calibration import (
    ReliabilityCurve,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_curve,
    top_confidence,
)
from pathzoo.evaluation.functional.classification import (
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    f1,
    f1_per_class,
    recall_per_class,
    recognition_rate,
    sensitivity,
    specificity,
    specificity_per_class,
)
from pathzoo.evaluation.functional.knn import knn_probs
from pathzoo.evaluation.functional.linear_probe import LinearProbe, linear_probe
from pathzoo.evaluation.functional.ranking import (
    PrecisionRecallCurve,
    RocCurve,
    average_precision,
    one_vs_rest,
    precision_recall_curve,
    roc_auc,
    roc_curve,
)
from pathzoo.evaluation.functional.region_tally import PatchSums, RegionTally
from pathzoo.evaluation.functional.report import Row, check_predictions, classification_report
from pathzoo.evaluation.functional.segmentation import confusion_counts
from pathzoo.evaluation.functional.segmentation_rows import segmentation_report
from pathzoo.evaluation.functional.slices import slice_report

__all__ = [
    "Interval",
    "LinearProbe",
    "PatchSums",
    "PrecisionRecallCurve",
    "RegionTally",
    "ReliabilityCurve",
    "RocCurve",
    "Row",
    "accuracy",
    "average_precision",
    "balanced_accuracy",
    "bootstrap_interval",
    "bootstrap_replicates",
    "brier_score",
    "check_predictions",
    "classification_report",
    "cluster_index",
    "confusion_counts",
    "confusion_matrix",
    "expected_calibration_error",
    "f1",
    "f1_per_class",
    "knn_probs",
    "linear_probe",
    "negative_log_likelihood",
    "one_vs_rest",
    "percentile_interval",
    "precision_recall_curve",
    "recall_per_class",
    "recognition_rate",
    "reliability_curve",
    "resample_counts",
    "roc_auc",
    "roc_curve",
    "segmentation_report",
    "sensitivity",
    "slice_report",
    "specificity",
    "specificity_per_class",
    "top_confidence",
]
