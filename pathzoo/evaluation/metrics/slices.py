"""The metric of configs that segment CT slices."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from pathzoo.ct.store import SliceStore
from pathzoo.evaluation.functional import Row, slice_report
from pathzoo.evaluation.metrics.segmentation import META_KEYS, SegmentationMetric
from pathzoo.evaluation.region_maps import MapPatch
from pathzoo.registry import METRICS

#: What the metric needs of each sample beside label maps; mmseg.PackSegInputs carries it in `meta_keys`.
SLICE_KEYS = (*(key for key in META_KEYS if key != "img_path"), "store", "subset", "slice_index", "hu_window")


class _Slice(NamedTuple):
    item: str
    patient: str | None
    slide: str | None
    store: str
    subset: str
    slice_index: int
    hu_window: tuple[float, float]


@METRICS.register_module()
class SliceMetric(SegmentationMetric):
    """All of `slice_report`, and then all of `segmentation_report`, over the slices of a validation or test set.

    The log has the former under their own names (slice_iou, slice_iou_absent_1, slice_iou_foreground, slice_iou_CLASS,
    patient_dice_CLASS, patient_false_CLASS), so `save_best="slice_iou"` works, and the latter as `SegmentationMetric`
    has them, a region being a slice. `rows` and metrics.json begin with the former. Pictures are read from the store
    and shown in the sample's HU window.

    Arguments, processes and files are those of `SegmentationMetric`. A sample is one whole slice: `region_index`
    numbers it, `store` is the folder of its store, `subset` and `slice_index` its place there, `hu_window` (low, high)
    the HU from black to white.
    """

    meta_keys = SLICE_KEYS
    region_type = _Slice

    def _first_rows(self, counts: np.ndarray, patients: Sequence[str | None], classes: Sequence[str]) -> list[Row]:
        return slice_report(counts, patients, classes, self.n_bootstrap, self.seed)

    def _picture(self, region: _Slice, patches: Sequence[MapPatch]) -> np.ndarray:
        """RGB uint8 at the size of the prediction, which the pipeline may have changed."""
        hu = SliceStore(region.store).image(region.subset, int(region.slice_index))
        low, high = (float(bound) for bound in region.hu_window)
        grey = np.clip((hu.astype(np.float32) - low) * (255 / (high - low)), 0, 255)
        size = (patches[0].width, patches[0].height)
        if grey.shape != size[::-1]:
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)
