"""FROC: the part of the objects that is found, over the false detections that it costs (Bunch et al., 1978)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pathzoo.evaluation.functional.classification import FloatArray, divide
from pathzoo.evaluation.functional.detection import Outcomes, exposure_of, score_ends

#: False detections per slide at which CAMELYON16 took the sensitivity; the mean of the six is its score.
CAMELYON_RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


class FrocCurve(NamedTuple):
    """One point (K,) for each distinct score, thresholds falling."""

    thresholds: FloatArray
    #: False detections per slide, or per unit of the exposure.
    false_positives: FloatArray
    #: Part of all objects that is found, 0..1.
    sensitivity: FloatArray


def froc_curve(outcomes: Outcomes) -> FrocCurve:
    """The curve of a set of U slides; false detections are counted by `outcomes.exposure`."""
    last = score_ends(outcomes.scores)
    found = outcomes.found.cumsum()[last]
    false = divide(last + 1 - found, exposure_of(outcomes).sum())
    return FrocCurve(outcomes.scores[last], false, divide(found, outcomes.n_objects.sum()))


def sensitivity_at(
    outcomes: Outcomes, rates: Sequence[float] = CAMELYON_RATES, weights: FloatArray | None = None
) -> FloatArray:
    """Sensitivity at given rates of false detections: the highest of any threshold that costs no more.

    Points of the curve are not joined by lines: what is given can be had. It is 0 where the first threshold costs more.

    Args:
        outcomes: of U slides.
        rates: r false detections per slide, or per unit of `outcomes.exposure`.
        weights: how often each slide counts (R, U).

    Returns:
        (R, r), or (r,) without weights; NaN where there is no object.
    """
    each, last = exposure_of(outcomes), score_ends(outcomes.scores)
    rows = np.ones((1, len(each))) if weights is None else np.atleast_2d(weights)
    values = np.empty((len(rows), len(rates)))
    for number, row in enumerate(rows):
        weight, total = row[outcomes.unit], row @ outcomes.n_objects
        found = (weight * outcomes.found).cumsum()
        false = (weight.cumsum() - found)[last]
        sensitivity = np.append(0.0, divide(found[last], total))
        limit = np.asarray(rates) * (row @ each) * (1 + 1e-12)  # sums of weights are not exact
        values[number] = sensitivity[np.searchsorted(false, limit, side="right")] if total else np.nan
    return values[0] if weights is None else values
