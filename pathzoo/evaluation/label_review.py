"""A review of label masks: the most doubtful regions first, their labels and the doubts as files that QuPath opens.

    ranking.csv               a line per region, the most suspicious first
    areas.csv                 a line per area in doubt, the heaviest first
    geojson/<image>.geojson   a region's labels, and its areas in doubt as the class "Review: CLASS"
    slides.csv                the pictures with patient and resolution: what annotations_to_regions.py takes
    pictures/*.png            the first regions: label, prediction, difference
    review.json               classes, thresholds, settings

Labels are outlined exactly, all but those of the background; pixels without a label are the class "Ignore*". So what
nobody changed comes back as it was (`tools/dataset_converters/annotations_to_regions.py`, with --background).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pathzoo.errors import ConfigError, DataError
from pathzoo.evaluation.functional.label_review import (
    NONE,
    LabelMap,
    ProbMap,
    RegionScores,
    class_thresholds,
    confident_joint,
    ranking,
    score_regions,
    tally,
)
from pathzoo.evaluation.region_probs import read_region_probs
from pathzoo.evaluation.review_areas import MIN_PIXELS, ReviewArea, review_areas
from pathzoo.fileio import write_json
from pathzoo.nearest import did_you_mean
from pathzoo.visualization.segmentation import panels
from pathzoo.wsi.geojson import Feature, annotation, area_measurements, write_features
from pathzoo.wsi.names import slide_name
from pathzoo.wsi.outlines import Outliner
from pathzoo.wsi.outputs import atomic_folder, write_csv, write_picture
from pathzoo.wsi.region_areas import REVIEW

RANKINGS = ("flip", "disagreement", "confidence")
#: Of areas in doubt: unlike tissue, and unlike the classes' colours.
_REVIEW_COLOR, _IGNORE_COLOR = (255, 215, 0), (150, 153, 158)
#: Stands for pixels without a label while they are outlined; 255 never is.
_UNLABELLED = 254


@dataclass(frozen=True)
class ReviewSource:
    """What is reviewed.

    Args:
        regions: Of the data set (item, image, patient, slide, mpp, sha256, width, height).
        classes: C names.
        colors: RGB of each.
        labels: Gives the (H, W) labels of a region by its number.
        probs: Gives its (C, H, W) probabilities, and the fold that it was tested in, where known.
        image: Gives its picture, (H, W, 3).
    """

    regions: Sequence[Any]
    classes: Sequence[str]
    colors: Sequence[tuple[int, int, int]]
    labels: Callable[[int], LabelMap]
    probs: Callable[[int], tuple[ProbMap, int | None]]
    image: Callable[[int], npt.NDArray[np.uint8]]


def review_source(dataset: Any, predictions: Path) -> ReviewSource:
    """The labels of a `RegionSegmentation`, as training sees them, and what a folder of `region_probs` says of them."""
    classes = list(dataset.metainfo["classes"])
    return ReviewSource(
        dataset.regions,
        classes,
        [tuple(color) for color in dataset.metainfo["palette"]],
        dataset.read_labels,
        lambda number: read_region_probs(predictions, dataset.regions[number], classes),
        dataset.read_image,
    )


def swapped_on_purpose(dataset: Any) -> list[bool]:
    """By region, whether `label_noise` exchanged its classes: what a review should find."""
    noise = [dataset.noise.get(region.item) for region in dataset.regions]
    return [bool(one and one.swapped) for one in noise]


@dataclass
class Review:
    """What was found, by the regions' numbers."""

    thresholds: npt.NDArray[np.float64]
    scores: RegionScores
    #: What the regions are ranked by, higher is more suspicious; and their numbers in that order.
    suspicion: npt.NDArray[np.float64]
    order: npt.NDArray[np.int64]
    areas: list[list[ReviewArea]] = field(default_factory=list)
    folds: list[int | None] = field(default_factory=list)


def review(
    source: ReviewSource,
    background: str,
    rank_by: str = "flip",
    min_pixels: int = MIN_PIXELS,
    progress: Callable[[str], None] | None = None,
) -> Review:
    """Scores every region and finds its areas in doubt; reads every probability twice, one region at a time.

    Args:
        source: What is reviewed.
        background: The class that is not taken for a lesion's other kind; see `flip_scores`.
        rank_by: "flip": lesions that look like another class of lesion as a whole; "disagreement": the share of pixels
            that the model is sure are of another class; "confidence": the lowest mean probability of the label,
            relative to what is usual for its class.
        min_pixels: Smaller areas are left out.
        progress: Called with a line of text now and then.

    Raises:
        ConfigError: An unknown ranking, or a background that is no class.
        DataError: No pixel of any region has a label.
    """
    if rank_by not in RANKINGS:
        raise ConfigError(f"rank-by {rank_by!r}{did_you_mean(rank_by, RANKINGS)}")
    check_background(background, source.classes)
    numbers, tallies, folds = range(len(source.regions)), [], []
    for number in numbers:
        probs, fold = source.probs(number)
        tallies.append(tally(source.labels(number), probs))
        folds.append(fold)
    pixels, sums = np.stack([t.pixels for t in tallies]), np.stack([t.sums for t in tallies])
    if not pixels.any():
        raise DataError(f"none of the {len(source.regions)} regions has a labelled pixel: there is nothing to review")
    thresholds = class_thresholds(pixels, sums)
    joint, areas = [], []
    for number in numbers:
        labels, (probs, _) = source.labels(number), source.probs(number)
        joint.append(confident_joint(labels, probs, thresholds))
        areas.append(review_areas(labels, probs, thresholds, min_pixels))
        if progress is not None:
            progress(f"{source.regions[number].item}: {len(areas[-1])} areas in doubt")
    lesions = [index for index, name in enumerate(source.classes) if name != background]
    exchangeable = lesions if len(lesions) > 1 else None
    scores = score_regions(pixels, sums, np.stack(joint), thresholds, exchangeable)
    suspicion = {
        "flip": scores.flip,
        "disagreement": scores.disagreement,
        "confidence": -scores.adjusted_confidence,
    }[rank_by]
    # Regions without a score (those without a lesion have no flip) follow, by disagreement.
    last = np.nanmin(suspicion, initial=0.0) - 2 + np.nan_to_num(scores.disagreement)
    suspicion = np.where(np.isnan(suspicion), last, suspicion)
    return Review(thresholds, scores, suspicion, ranking(suspicion), areas, folds)


def check_background(background: str, classes: Sequence[str]) -> None:
    """Raises ConfigError where the background is no class."""
    if background not in classes:
        raise ConfigError(f"background {background!r} is no class{did_you_mean(background, classes)}")


def region_names(regions: Sequence[Any]) -> list[str]:
    """What the files of each region are called, and its picture in QuPath: the picture's name without its ending.

    Raises:
        DataError: Two pictures have one name.
    """
    names = [slide_name(Path(region.image)) for region in regions]
    first: dict[str, str] = {}
    for name, region in zip(names, regions, strict=True):
        if first.setdefault(name, region.item) != region.item:
            raise DataError(
                f"{region.item} and {first[name]}: two pictures of one name cannot be told apart in QuPath; rename one"
            )
    return names


def write_review(
    out: Path,
    source: ReviewSource,
    found: Review,
    background: str,
    settings: dict[str, Any],
    pictures: int = 8,
    overwrite: bool = False,
) -> None:
    """Writes the files of the module's head, whole or not at all.

    Raises:
        DataError: Two regions' pictures have one name.
        SlideError: `out` exists and `overwrite` is False, or it cannot be written.
    """
    names = region_names(source.regions)
    with atomic_folder(out, overwrite) as folder:
        for part in ("geojson", "pictures"):
            (folder / part).mkdir()
        write_csv(folder / "ranking.csv", *_ranking_table(source, found))
        write_csv(folder / "areas.csv", *_area_table(source, found))
        for rank, number in enumerate(found.order.tolist(), start=1):
            features = region_features(source, number, found.areas[number], background, rank)
            write_features(folder / "geojson" / f"{names[number]}.geojson", features)
        rows = [
            [_relative(r.image, out), r.patient or "", "" if r.mpp is None else f"{r.mpp:.6g}"] for r in source.regions
        ]
        write_csv(folder / "slides.csv", ("slide", "patient", "mpp"), rows)
        for rank, number in enumerate(found.order[:pictures].tolist(), start=1):
            page = _picture(source, number, background, f"{rank}. {source.regions[number].item} (truth: its label)")
            write_picture(folder / "pictures" / f"{rank:03d}_{names[number]}.png", page)
        thresholds = {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(source.classes, found.thresholds, strict=True)
        }
        about = {"format": 1, "classes": list(source.classes), "background": background, "thresholds": thresholds}
        write_json(folder / "review.json", about | settings)


def region_features(
    source: ReviewSource, number: int, areas: Sequence[ReviewArea], background: str, rank: int | None = None
) -> Iterator[Feature]:
    """A region's labels and areas in doubt as QuPath annotations, in pixels of its picture.

    An area in doubt has the class "Review: CLASS" of what it looks like, and its name says what is labelled there.
    """
    region, classes = source.regions[number], list(source.classes)
    labels = source.labels(number)
    traced = np.where(labels == NONE, np.uint8(_UNLABELLED), labels)
    values = [index for index, name in enumerate(classes) if name != background]
    outliner = Outliner(labels.shape[1], [*values, _UNLABELLED], tolerance=0, min_pixels=1)
    outliner.add(traced)
    for outline in outliner.finish():
        ignored = outline.label == _UNLABELLED
        name = "Ignore*" if ignored else classes[outline.label]
        color = _IGNORE_COLOR if ignored else source.colors[outline.label]
        yield annotation(outline.polygon, name, color, _sizes(outline.pixels, region.mpp), f"{region.item}|{name}")
    for area in areas:
        given, proposed = classes[area.given], classes[area.proposed]
        measured = {
            **_sizes(area.pixels, region.mpp),
            **({} if rank is None else {"Rank of region": float(rank)}),
            "Margin": area.margin,
            f"Mean probability {given}": area.given_prob,
            f"Mean probability {proposed}": area.proposed_prob,
        }
        key = f"{region.item}|{given}|{REVIEW}{proposed}"
        feature = annotation(area.polygon, f"{REVIEW}{proposed}", _REVIEW_COLOR, measured, key)
        feature["properties"]["name"] = f"labelled {given}, looks like {proposed} ({area.proposed_prob:.2f})"
        yield feature


def _sizes(pixels: int, mpp: float | None) -> dict[str, float]:
    return {"Pixels": float(pixels), **({} if mpp is None else area_measurements(pixels * mpp**2))}


def _ranking_table(source: ReviewSource, found: Review) -> tuple[Sequence[str], list[list[object]]]:
    header = ("rank", "item", "patient", "slide", "fold", "suspicion", "flip", "flip_from", "flip_to", "disagreement",
              "self_confidence", "adjusted_confidence", "areas", "area_pixels")  # fmt: skip
    rows = []
    for rank, number in enumerate(found.order.tolist(), start=1):
        region, areas, scores = source.regions[number], found.areas[number], found.scores
        pair = [source.classes[i] if i >= 0 else "" for i in (scores.flip_from[number], scores.flip_to[number])]
        fold = found.folds[number]
        rows.append([
            rank, region.item, region.patient or "", region.slide or "", "" if fold is None else fold,
            _text(found.suspicion[number]), _text(scores.flip[number]), *pair, _text(scores.disagreement[number]),
            _text(scores.self_confidence[number]), _text(scores.adjusted_confidence[number]),
            len(areas), sum(area.pixels for area in areas),
        ])  # fmt: skip
    return header, rows


def _area_table(source: ReviewSource, found: Review) -> tuple[Sequence[str], list[list[object]]]:
    header = ("rank", "item", "labelled", "looks_like", "whole", "pixels", "margin", "prob_labelled", "prob_looks_like",
              "x", "y", "width", "height")  # fmt: skip
    every = [(area, number) for number, areas in enumerate(found.areas) for area in areas]
    every.sort(key=lambda pair: -pair[0].weight)
    rows: list[list[object]] = []
    for rank, (area, number) in enumerate(every, start=1):
        x0, y0, x1, y1 = (int(value) for value in area.polygon.bounds)
        rows.append([
            rank, source.regions[number].item, source.classes[area.given], source.classes[area.proposed],
            int(area.whole), area.pixels, _text(area.margin), _text(area.given_prob), _text(area.proposed_prob),
            x0, y0, x1 - x0, y1 - y0,
        ])  # fmt: skip
    return header, rows


def _picture(source: ReviewSource, number: int, background: str, title: str) -> npt.NDArray[np.uint8]:
    probs, _ = source.probs(number)
    answer = {"models that have not seen it": probs.argmax(axis=0).astype(np.uint8)}
    place = list(source.classes).index(background)
    labels = source.labels(number)
    return panels(source.image(number), labels, answer, source.classes, source.colors, title=title, background=place)


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(Path(path).resolve(), folder.resolve())).as_posix()


def _text(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6f}"
