"""The places of a region where its label and a model that has not seen it disagree, each a connected area."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from shapely.affinity import translate
from shapely.geometry import Polygon

from pathzoo.evaluation.functional.label_review import NONE, LabelMap, ProbMap, confident_classes, margins
from pathzoo.wsi.outlines import Outliner

#: Seams thinner than this many pixels are no areas: outlines are drawn, and predicted, no better.
THINNEST = 5
#: Pixels; smaller areas are left out.
MIN_PIXELS = 64


@dataclass(frozen=True)
class ReviewArea:
    """A connected area that has one label and looks like another class."""

    #: Class indices: what is labelled, and what it looks like.
    given: int
    proposed: int
    #: The whole of a labelled area looks like the other class; otherwise part of one.
    whole: bool
    pixels: int
    #: Mean probability of both over the area, 0..1.
    given_prob: float
    proposed_prob: float
    #: By how much it looks more like `proposed`, each class relative to what is usual for it; see `margins`.
    margin: float
    #: In pixels of the region.
    polygon: Polygon

    @property
    def weight(self) -> float:
        """What the areas are ranked by: pixels times margin."""
        return self.pixels * self.margin


def review_areas(
    labels: LabelMap,
    probs: ProbMap,
    thresholds: npt.NDArray[np.float64],
    min_pixels: int = MIN_PIXELS,
) -> list[ReviewArea]:
    """Finds the areas of a region that are worth a second look.

    A connected area of one label that on average looks more like another class is proposed as a whole. In the others
    those parts are that the model confidently gives to another class, without seams. Outlines are exact: a simpler one
    would leave a rim of the old label around what is accepted.

    Args:
        labels: (H, W) class indices, 255 for pixels without a label.
        probs: (C, H, W), float in 0..1 or uint8.
        thresholds: (C,), of `class_thresholds` over all regions.
        min_pixels: Smaller areas are left out.

    Returns:
        The areas, the one of the greatest weight first.
    """
    scale = 255 if probs.dtype == np.uint8 else 1
    whole = _whole_proposals(labels, probs, thresholds, min_pixels, scale)
    sure = confident_classes(probs, thresholds)
    found = []
    for given in range(len(probs)):
        of_label = labels == given
        if not of_label.any():
            continue
        for proposed in range(len(probs)):
            if proposed == given:
                continue
            part = of_label & (sure == proposed) & (whole == NONE)
            kinds = ((of_label & (whole == proposed), True), (_without_seams(part), False))
            for member, is_whole in kinds:
                for inside, box in _connected(member, min_pixels):
                    sums = [float(p[box][inside].sum(dtype=np.float64)) / scale for p in probs]
                    count = int(inside.sum())
                    margin = _margins(given, count, np.array(sums), thresholds)[proposed]
                    shares = sums[given] / count, sums[proposed] / count
                    polygon = _outline(inside, box)
                    found.append(ReviewArea(given, proposed, is_whole, count, *shares, float(margin), polygon))
    return sorted(found, key=lambda area: -area.weight)


def _whole_proposals(
    labels: LabelMap, probs: ProbMap, thresholds: npt.NDArray[np.float64], min_pixels: int, scale: int
) -> LabelMap:
    """(H, W): the class that the labelled area around a pixel looks like on average, NONE where that is its own."""
    proposals = np.full(labels.shape, NONE, np.uint8)
    for given in range(len(probs)):
        if not np.isfinite(thresholds[given]):
            continue
        for inside, box in _connected(labels == given, min_pixels):
            sums = np.array([p[box][inside].sum(dtype=np.float64) / scale for p in probs])
            margin = np.nan_to_num(_margins(given, int(inside.sum()), sums, thresholds), nan=-np.inf)
            if margin.max() > 0:
                proposals[box][inside] = int(margin.argmax())
    return proposals


def _margins(
    given: int, count: int, sums: npt.NDArray[np.float64], thresholds: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(C,) of pixels that all have one label."""
    classes = len(sums)
    pixels, table = np.zeros(classes, np.int64), np.zeros((classes, classes))
    pixels[given], table[given] = count, sums
    return np.asarray(margins(pixels, table, thresholds)[given])


def _without_seams(member: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (THINNEST, THINNEST))
    return cv2.morphologyEx(member.astype(np.uint8), cv2.MORPH_OPEN, kernel).view(np.bool_)


def _connected(
    member: npt.NDArray[np.bool_], min_pixels: int
) -> Iterator[tuple[npt.NDArray[np.bool_], tuple[slice, slice]]]:
    """The 4-connected areas of at least so many pixels: which pixels of a box are inside, and the box."""
    count, components, boxes, _ = cv2.connectedComponentsWithStats(member.astype(np.uint8), connectivity=4)
    for number in range(1, count):
        x, y, width, height, pixels = boxes[number].tolist()
        if pixels >= min_pixels:
            box = slice(y, y + height), slice(x, x + width)
            yield components[box] == number, box


def _outline(inside: npt.NDArray[np.bool_], box: tuple[slice, slice]) -> Polygon:
    outliner = Outliner(inside.shape[1], [0], tolerance=0, min_pixels=1)
    outliner.add(np.where(inside, np.uint8(0), np.uint8(NONE)))
    (outline,) = outliner.finish()
    return translate(outline.polygon, box[1].start, box[0].start)
