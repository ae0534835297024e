"""What is evaluated of a detector, and all that comes of it: at the level of tiles, or of whole slides."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pathzoo.errors import DataError
from pathzoo.evaluation.coco_summary import coco_summary
from pathzoo.evaluation.functional.detection import ConfidenceCurve, Outcomes, confidence_curve, outcomes_at
from pathzoo.evaluation.functional.detection_matching import ClassMatches, Picture, check_picture, match_pictures
from pathzoo.evaluation.functional.detection_rows import (
    Point,
    Resampling,
    choose_points,
    coco_report,
    detection_report,
    froc_report,
)
from pathzoo.evaluation.functional.rows import Row

LEVELS = ("tile", "slide")


@dataclass(frozen=True)
class DetectionRules:
    """How detections are counted.

    Attributes:
        iou: intersection over union from which a detection has found an object, above 0, at most 1.
        target_recall: a threshold is looked for that reaches it; None for none.
        threshold: one to report on, chosen elsewhere; None for none.
        n_bootstrap: resamples for the intervals; 0 for none.
        seed: of the resampling.
    """

    iou: float = 0.5
    target_recall: float | None = 0.99
    threshold: float | None = None
    n_bootstrap: int = 1000
    seed: int = 0

    def check(self) -> None:
        """Raises DataError for a value out of its bounds."""
        for name in ("iou", "target_recall", "threshold"):
            value = getattr(self, name)
            if value is not None and not (0 < value <= 1 or (name == "threshold" and value == 0)):
                raise DataError(f"{name.replace('_', '-')} {value}: give a number above 0 and at most 1")
        if self.n_bootstrap < 0:
            raise DataError(f"bootstrap {self.n_bootstrap}: give 0 for none, or a number of resamples")
        if self.seed < 0:
            raise DataError(f"seed {self.seed}: give 0 or more")


@dataclass(frozen=True)
class DetectionSet:
    """Detections and objects of U tiles or slides, and where they are from.

    Attributes:
        pictures: U of them.
        items: their names.
        patients, slides: of each, None where unknown.
        classes: C names.
        level: "tile" or "slide".
        mm2: area of each slide, for FROC per mm²; None counts by slide.
        objects: ids of each picture's objects, for the list of matches; by default their numbers.
        least: score from which on all detections are there; none below it can be judged.
    """

    pictures: Sequence[Picture]
    items: Sequence[str]
    patients: Sequence[str | None]
    slides: Sequence[str | None]
    classes: Sequence[str]
    level: str = "tile"
    mm2: Sequence[float] | None = None
    objects: Sequence[Sequence[str]] | None = None
    least: float = 0.0

    def check(self) -> None:
        """Raises DataError where there is nothing to evaluate, or a box, class or score is wrong; it names the item."""
        if not self.pictures:
            raise DataError(f"no {self.level} to evaluate: the set is empty")
        if self.level not in LEVELS:
            raise ValueError(f"level {self.level!r}: give one of {', '.join(LEVELS)}")
        for name, values in (("items", self.items), ("patients", self.patients), ("slides", self.slides)):
            if len(values) != len(self.pictures):
                raise ValueError(f"{len(values)} {name} for {len(self.pictures)} pictures: give one for each")
        for item, picture in zip(self.items, self.pictures, strict=True):
            check_picture(picture, len(self.classes), item)

    def by_area(self, outcomes: Outcomes) -> Outcomes:
        """The same with false detections counted by mm², where the areas are known."""
        return outcomes if self.mm2 is None else outcomes._replace(exposure=np.asarray(self.mm2, dtype=np.float64))


@dataclass(frozen=True)
class DetectionResult:
    """Numbers of a set, and what they were counted from at the chosen least overlap.

    Attributes:
        rows: for metrics.json.
        matches: of each class.
        outcomes: of all classes together.
        curve: of all classes together.
        points: the thresholds to work at.
        resampled: "patient" or "slide".
        by_class: of each class.
    """

    rows: list[Row]
    matches: list[ClassMatches]
    outcomes: Outcomes
    curve: ConfidenceCurve
    points: list[Point]
    resampled: str
    by_class: list[Outcomes]


def evaluate_detection(found: DetectionSet, rules: DetectionRules = DetectionRules()) -> DetectionResult:
    """Every number of a detector.

    At level tile COCO's ap, ap50, ap75, ar100 (`coco_report`, by faster-coco-eval) come first, at level slide FROC's
    sensitivities last (`froc_report`); both have average_precision and highest_recall at `rules.iou` and what the
    thresholds of best F1, of the target recall, and the given one cost (`detection_report`). With several classes these
    count all classes together, each detection against objects of its own class.

    Raises:
        DataError: nothing to evaluate, an argument out of bounds, a threshold below what the set holds, or a box, class
            or score that cannot be.
        ConfigError: faster-coco-eval is not installed (level tile).
    """
    rules.check()
    found.check()
    if rules.threshold is not None and rules.threshold < found.least:
        raise DataError(
            f"threshold {rules.threshold:g}: the predictions hold scores from {found.least:g} up; give at least that, "
            "or predict with a lower --score-threshold"
        )
    resampling = Resampling(found.patients, found.slides, rules.n_bootstrap, rules.seed)
    matches = match_pictures(found.pictures, len(found.classes), (rules.iou,))
    outcomes = outcomes_at(matches)
    curve = confidence_curve(outcomes)
    points = choose_points(curve, rules.target_recall, rules.threshold, int(outcomes.n_objects.sum()))
    notes = [f"intersection over union of at least {rules.iou:g}"]
    notes += ["all classes together"] if len(found.classes) > 1 else []
    rows = _coco_rows(found, resampling) if found.level == "tile" else []
    rows += detection_report(outcomes, found.level, resampling, points, notes)
    if found.level == "slide":
        unit = "slide" if found.mm2 is None else "mm2"
        rows += froc_report(found.by_area(outcomes), resampling, unit=unit, notes=notes)
    by_class = [outcomes_at([match]) for match in matches]
    return DetectionResult(rows, matches, outcomes, curve, points, resampling.by, by_class)


def _coco_rows(found: DetectionSet, resampling: Resampling) -> list[Row]:
    """COCO's values by faster-coco-eval, with the intervals of `coco_report`, which is equal to it."""
    values = coco_summary(found.pictures, found.classes)
    rows = coco_report(found.pictures, found.classes, resampling, found.level)
    for row in rows:
        value = values.get(row["metric"])
        if value is not None and not np.isnan(value):
            row["value"] = value
    return rows
