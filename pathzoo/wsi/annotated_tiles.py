"""Annotated slides to a folder of labelled tiles that `pathzoo.TileClassification` reads."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import shapely
from PIL import Image

from pathzoo.errors import DataError, SlideError
from pathzoo.phantom_mark import keep_mark
from pathzoo.wsi.annotation_sources import AnnotatedSlide, patients_unknown, refuse_same_names
from pathzoo.wsi.annotations import Area, read_areas
from pathzoo.wsi.names import slide_name
from pathzoo.wsi.object_crops import crop_corners
from pathzoo.wsi.outputs import atomic_folder, write_csv
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tiling import TileGrid, tile_grid
from pathzoo.wsi.types import Int64

HEADER = ("path", "label", "patient", "slide", "mpp", "x", "y")

#: Labels of tiles that get no class.
OUTSIDE, AMBIGUOUS = -1, -2


@dataclass
class TileReport:
    """What `cut_annotated_tiles` did, in counts."""

    slides: int = 0
    tiles: Counter[str] = field(default_factory=Counter)
    #: Touched by an annotation, but no class covers enough, or two do.
    ambiguous: int = 0
    unreadable: int = 0
    #: Of tiles around objects: objects in the place of another one, and objects that are larger than their tile.
    twice: int = 0
    larger: int = 0
    slides_without_patient: list[str] = field(default_factory=list)
    #: Annotated areas by class name that were not asked for; "(no class)" for unclassified ones.
    ignored_areas: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """The report as text, one fact a line."""
        lines = [f"{sum(self.tiles.values())} tiles from {self.slides} slides"]
        lines += [f"  {name}: {n}" for name, n in self.tiles.items()]
        lines.append(f"left out as ambiguous: {self.ambiguous}")
        if self.unreadable:
            lines.append(f"left out as unreadable: {self.unreadable}")
        if self.twice:
            lines.append(f"drawn twice, one tile for both: {self.twice}")
        if self.larger:
            lines.append(f"warning: larger than their tile, of which they show the middle: {self.larger}")
        lines += [f"annotated areas ignored, class {name!r}: {n}" for name, n in self.ignored_areas.items()]
        return [*lines, *patients_unknown(self.slides_without_patient)]


def label_tiles(grid: TileGrid, areas: Sequence[Area], classes: Sequence[str], min_cover: float) -> Int64:
    """Labels each tile of a grid by the class that covers enough of it.

    Args:
        grid: n tiles.
        areas: Geometry in level-0 pixels and class; overlapping areas of one class count once.
        classes: The classes that label, in the order of their numbers.
        min_cover: Part of the tile's area that the class must cover, 0 < min_cover <= 1. What of a tile lies outside
            the slide counts as not covered.

    Returns:
        (n,) class number; `OUTSIDE` where no such class touches the tile, `AMBIGUOUS` where one does, but none covers
        enough or more than one does.
    """
    corners, (width, height) = grid.corners, grid.extent
    tiles = shapely.box(corners[:, 0], corners[:, 1], corners[:, 0] + width, corners[:, 1] + height)
    cover = np.zeros((len(grid), len(classes)))
    for index, name in enumerate(classes):
        whole = shapely.union_all([area for area, label in areas if label == name])
        shapely.prepare(whole)
        touched = np.flatnonzero(shapely.intersects(whole, tiles))
        cover[touched, index] = shapely.area(shapely.intersection(whole, tiles[touched])) / (width * height)
    enough = cover >= min_cover - 1e-9
    labels = np.where(enough.sum(axis=1) == 1, enough.argmax(axis=1), AMBIGUOUS)
    labels[cover.max(axis=1, initial=0) <= 1e-9] = OUTSIDE
    return labels.astype(np.int64)


def tiles_around(
    areas: Sequence[Area], classes: Sequence[str], tile: int, downsample: float
) -> tuple[dict[tuple[int, int], int], int]:
    """Puts a tile around each area, with the middle of the area's box in its own, as `pathzoo predict --classify` does.

    Args:
        areas: Geometry in level-0 pixels and class.
        classes: The classes that label, in the order of their numbers; other areas get no tile.
        tile: Side of a tile in pixels.
        downsample: Level-0 pixels per pixel of a tile.

    Returns:
        Class number by level-0 corner (x, y), `AMBIGUOUS` where areas of two classes have the same corner; and how many
        areas are larger than their tile.
    """
    kept = [(area, classes.index(name)) for area, name in areas if name in classes]
    boxes = np.array([area.bounds for area, _ in kept], np.float64).reshape(-1, 4)
    found: dict[tuple[int, int], int] = {}
    for (x, y), (_, label) in zip(crop_corners(boxes, (tile, tile), downsample).tolist(), kept, strict=True):
        found[x, y] = label if found.get((x, y), label) == label else AMBIGUOUS
    return found, int(((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) > tile * downsample).sum())


def cut_annotated_tiles(
    slides: Sequence[AnnotatedSlide],
    out: Path,
    *,
    tile: int,
    mpp: float,
    classes: Sequence[str] | None = None,
    overlap: float = 0.0,
    min_cover: float = 0.5,
    around_objects: bool = False,
    progress: Callable[[str], None] | None = None,
) -> TileReport:
    """Writes `out/<slide's name>/x<X>_y<Y>.png` and `out/tiles.csv`, whole or not at all.

    The table has the columns path (relative to `out`), label (class name), patient (empty if unknown), slide (its name
    without ending), mpp (of the tile's pixels), x and y (level-0 corner).

    Args:
        slides: What to cut; names without endings must differ.
        out: A folder that does not exist yet.
        tile: Side of a tile in pixels.
        mpp: Microns per pixel of the tiles; a slide coarser than this is an error.
        classes: Class names that label tiles; None takes all that occur, sorted.
        overlap: Part of a tile that its neighbour covers too.
        min_cover: Part of a tile that its class must cover.
        around_objects: One tile around each area, in place of those of a grid: what a classifier of single objects is
            trained on. `overlap` and `min_cover` mean nothing then.
        progress: Called with a line of text after each slide.

    Returns:
        Counts.

    Raises:
        SlideError: Unreadable slide or resolution that does not fit, `out` exists, two slides of one name.
        DataError: Unreadable annotations, bad arguments, or not one tile to write.
    """
    classes = sorted(_all_classes(slides)) if classes is None else list(classes)
    rules = _Rules(tile, mpp, classes, overlap, min_cover, around_objects)
    _check(slides, rules)
    report = TileReport()
    report.tiles = Counter(dict.fromkeys(classes, 0))
    rows: list[list[object]] = []
    with atomic_folder(out) as folder:
        for source in slides:
            before = sum(report.tiles.values())
            rows += _cut_slide(source, folder, rules, report)
            report.slides += 1
            if progress is not None:
                progress(f"{source.slide.name}: {sum(report.tiles.values()) - before} tiles")
        if not rows:
            raise _nothing(out, rules)
        write_csv(folder / "tiles.csv", HEADER, rows)
        keep_mark(folder, [source.slide for source in slides])
    return report


@dataclass(frozen=True)
class _Rules:
    tile: int
    mpp: float
    classes: list[str]
    overlap: float
    min_cover: float
    around_objects: bool


def _cut_slide(source: AnnotatedSlide, folder: Path, rules: _Rules, report: TileReport) -> list[list[object]]:
    rows: list[list[object]] = []
    name, tile = slide_name(source.slide), rules.tile
    with Slide(source.slide, mpp=source.mpp) as slide:
        target = slide.resolve_mpp(rules.mpp)
        areas = read_areas(source.annotations, slide.bounds[:2]) if source.annotations else []
        report.ignored_areas.update(label or "(no class)" for _, label in areas if label not in rules.classes)
        if source.patient is None:
            report.slides_without_patient.append(name)
        (folder / name).mkdir()
        for (x, y), label in _labels(slide, areas, target, rules, report).items():
            try:
                pixels = slide.read(x, y, tile, tile, target)
            except SlideError:
                report.unreadable += 1
                continue
            path = f"{name}/x{x}_y{y}.png"
            Image.fromarray(pixels).save(folder / path)
            report.tiles[rules.classes[label]] += 1
            rows.append([path, rules.classes[label], source.patient or "", name, f"{target:.6g}", x, y])
    return rows


def _labels(
    slide: Slide, areas: Sequence[Area], mpp: float, rules: _Rules, report: TileReport
) -> dict[tuple[int, int], int]:
    """Class number of each tile that has one, by its level-0 corner."""
    assert slide.mpp is not None
    downsample = mpp / slide.mpp
    if rules.around_objects:
        found, larger = tiles_around(areas, rules.classes, rules.tile, downsample)
        report.twice += sum(name in rules.classes for _, name in areas) - len(found)
        report.larger += larger
    else:
        grid = tile_grid(slide.bounds, (rules.tile, rules.tile), downsample, rules.overlap)
        labels = label_tiles(grid, areas, rules.classes, rules.min_cover)
        found = {(x, y): label for (x, y), label in zip(grid.corners.tolist(), labels.tolist(), strict=True)}
    report.ambiguous += sum(label == AMBIGUOUS for label in found.values())
    return {corner: label for corner, label in found.items() if label >= 0}


def _nothing(out: Path, rules: _Rules) -> DataError:
    named = ", ".join(rules.classes) or "(none found)"
    if rules.around_objects:
        return DataError(
            f"{out}: no tile was cut: there is no area of class {named}; check --classes and the annotations"
        )
    return DataError(
        f"{out}: no tile was cut: no area of class {named} covers {rules.min_cover:.0%} of a tile; check --classes, "
        "--min-cover and the annotations' classes"
    )


def _all_classes(slides: Sequence[AnnotatedSlide]) -> set[str]:
    files = [source.annotations for source in slides if source.annotations]
    return {name for file in files for _, name in read_areas(file) if name is not None}


def _check(slides: Sequence[AnnotatedSlide], rules: _Rules) -> None:
    refuse_same_names(slides)
    if not slides:
        raise DataError("no slide with annotations was given; they are found by name: SLIDE.geojson or SLIDE.xml")
    if rules.tile < 1 or rules.mpp <= 0:
        raise DataError(f"tile is {rules.tile} px and mpp {rules.mpp}; both must be above 0")
    if not 0 <= rules.overlap < 1:
        raise DataError(f"overlap is {rules.overlap}; it must be at least 0 and below 1")
    if rules.overlap and rules.around_objects:
        raise DataError(f"overlap is {rules.overlap}; tiles around objects lie where those are: leave --overlap out")
    if not 0 < rules.min_cover <= 1:
        raise DataError(f"min-cover is {rules.min_cover}; it must be above 0 and at most 1")
