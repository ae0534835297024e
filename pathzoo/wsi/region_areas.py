"""What the annotated areas of a slide stand for, and which rectangles are cut for them: geometry only, no pixels.

An area's class, after renaming, is one of the classes of the masks; or the class that marks rectangles to cut
("Region"); or "Ignore" (QuPath writes "Ignore*"), of which nothing is to be learnt; or "Review: CLASS", a proposal of
`tools/analysis_tools/label_review.py`; or it is left out, and counted.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from pathzoo.errors import ConfigError
from pathzoo.nearest import did_you_mean
from pathzoo.wsi.annotations import Area
from pathzoo.wsi.rasterising import IGNORE
from pathzoo.wsi.types import Region

#: How a proposal's class begins; QuPath takes it for a class derived from "Review".
REVIEW = "Review: "
CUTS = ("whole", "annotated", "regions")


@dataclass(frozen=True)
class AreaRules:
    """What annotations stand for, and what is cut.

    Args:
        classes: Of the masks, in the order of their values; where areas overlap the later class wins.
        cut: "whole" slides or images; "annotated": the boxes around areas of the classes, boxes that touch joined;
            "regions": the areas of the class `region_class`.
        background: The class of what no area covers; None for 255, of which nothing is learnt.
        region_class: Areas of it are cut under "regions", and have no class of their own under any.
        margin: Pixels (of what is cut) around the boxes of "annotated".
        rename: Annotated name -> class, before anything else.
        accept_reviews: "Review: CLASS" counts as CLASS, above all other classes; else it is left out.

    Raises:
        ConfigError: An unknown cut, a background or a renamed class that is no class, a class with a meaning of its
            own, a class twice, fewer than 2 classes or more than 254.
    """

    classes: tuple[str, ...]
    cut: str = "whole"
    background: str | None = None
    region_class: str = "Region"
    margin: int = 0
    rename: Mapping[str, str] = field(default_factory=dict)
    accept_reviews: bool = False

    def __post_init__(self) -> None:
        if self.cut not in CUTS:
            raise ConfigError(f"cut={self.cut!r}{did_you_mean(self.cut, CUTS)}")
        if not 1 < len(self.classes) < IGNORE:
            raise ConfigError(
                f"classes are {', '.join(self.classes)}: give 2 to {IGNORE - 1}, the one of everything else among them"
            )
        for name, count in Counter(self.classes).items():
            if count > 1:
                raise ConfigError(f"class {name!r} stands twice in {', '.join(self.classes)}")
            if name == self.region_class or name.startswith(REVIEW) or is_ignore(name):
                raise ConfigError(f"class {name!r}: annotations of this name have a meaning of their own; rename it")
        if self.background is not None and self.background not in self.classes:
            raise ConfigError(
                f"background {self.background!r} is no class{did_you_mean(self.background, self.classes)}"
            )
        for old, new in self.rename.items():
            if new not in (*self.classes, self.region_class) and not is_ignore(new):
                raise ConfigError(f"{old!r} is renamed to {new!r}, which is no class{did_you_mean(new, self.classes)}")
        if self.margin < 0:
            raise ConfigError(f"margin is {self.margin} px; it must be at least 0")


@dataclass
class SortedAreas:
    """The areas of one slide by what they stand for."""

    #: Geometry and mask value, in the order in which they are drawn.
    drawn: list[tuple[BaseGeometry, int]] = field(default_factory=list)
    #: Areas to cut.
    regions: list[BaseGeometry] = field(default_factory=list)
    #: Areas that were left out, by class; "(no class)" for unclassified ones.
    left_out: Counter[str] = field(default_factory=Counter)


def is_ignore(name: str) -> bool:
    """Whether a class says that nothing is to be learnt there."""
    return name.rstrip("*").lower() == "ignore"


def class_names(areas: Sequence[Area], rename: Mapping[str, str], region_class: str) -> set[str]:
    """The classes that occur, after renaming, without those that have a meaning of their own."""
    names = {rename.get(name, name) for _, name in areas if name is not None}
    return {n for n in names if n != region_class and not n.startswith(REVIEW) and not is_ignore(n)}


def sort_areas(areas: Sequence[Area], rules: AreaRules) -> SortedAreas:
    """Sorts areas by what their class stands for.

    Drawn in turn, and so the later over the earlier: the classes in their order, accepted reviews, what is ignored.
    """
    found = SortedAreas()
    places = {name: number for number, name in enumerate(rules.classes)}
    ranked: list[tuple[int, BaseGeometry, int]] = []
    for geometry, given in areas:
        name = "" if given is None else rules.rename.get(given, given)
        proposed = name[len(REVIEW) :] if name.startswith(REVIEW) else None
        if name in places:
            ranked.append((places[name], geometry, places[name]))
        elif proposed in places and rules.accept_reviews:
            ranked.append((IGNORE, geometry, places[proposed]))
        elif is_ignore(name):
            ranked.append((IGNORE + 1, geometry, IGNORE))
        elif name == rules.region_class:
            found.regions.append(geometry)
        else:
            found.left_out[name or "(no class)"] += 1
    found.drawn = [(geometry, value) for _, geometry, value in sorted(ranked, key=lambda area: area[0])]
    return found


@dataclass(frozen=True)
class Cut:
    """A rectangle to cut."""

    #: Level-0 corner.
    x: int
    y: int
    #: Pixels of what is cut.
    width: int
    height: int
    #: Level-0 pixels per such pixel.
    scale: float
    #: In level-0 pixels; what of the rectangle lies outside is ignored. None: all of it counts.
    outline: BaseGeometry | None = None

    def to_pixels(self, geometry: BaseGeometry) -> BaseGeometry:
        """A geometry of level-0 pixels in pixels of what is cut."""
        corner = np.array([self.x, self.y], np.float64)
        return shapely.transform(geometry, lambda xy: (xy - corner) / self.scale)

    @property
    def box(self) -> BaseGeometry:
        """The rectangle in level-0 pixels."""
        right, below = self.x + self.width * self.scale, self.y + self.height * self.scale
        return shapely.box(self.x, self.y, right, below)


def plan_cuts(areas: SortedAreas, rules: AreaRules, bounds: Region, scale: float) -> list[Cut]:
    """The rectangles of one slide, none where nothing asks for one.

    Corners lie on whole pixels of the scaled slide. Rectangles end at the slide's bounds.

    Args:
        areas: The slide's.
        rules: What is cut.
        bounds: x, y, width, height of the slide in level-0 pixels.
        scale: Level-0 pixels per pixel of what is cut.
    """
    x, y, width, height = bounds
    whole = shapely.box(x, y, x + width, y + height)
    if rules.cut == "whole":
        return [_cut(whole, whole, scale)]
    if rules.cut == "annotated":
        margin = rules.margin * scale
        # What is to be ignored is no reason to cut.
        boxes = [area.envelope for area, value in areas.drawn if value != IGNORE and share_area(area, whole)]
        grown = [shapely.box(*np.add(box.bounds, (-margin, -margin, margin, margin))) for box in boxes]
        return [_cut(box, whole, scale) for box in joined_boxes(grown)]
    cuts = []
    for area in areas.regions:
        if share_area(area, whole):
            exact = area.equals(area.envelope)
            cuts.append(_cut(area, whole, scale, None if exact else area))
    return sorted(cuts, key=lambda cut: (cut.y, cut.x))


def share_area(one: BaseGeometry, other: BaseGeometry) -> bool:
    """Whether two areas overlap; it is not enough that they touch."""
    return one.intersects(other) and one.intersection(other).area > 0


def joined_boxes(boxes: Sequence[BaseGeometry]) -> list[BaseGeometry]:
    """Boxes that do not overlap, each around all those that it joins; from top to bottom, then left to right."""
    parts = list(boxes)
    while True:
        union = [part.envelope for part in shapely.get_parts(shapely.union_all(parts))]
        if len(union) == len(parts):
            break
        parts = union
    return sorted(parts, key=lambda box: (box.bounds[1], box.bounds[0]))


def _cut(area: BaseGeometry, whole: BaseGeometry, scale: float, outline: BaseGeometry | None = None) -> Cut:
    x0, y0, x1, y1 = area.intersection(whole).bounds
    x, y = (math.floor(math.floor(place / scale + 1e-6) * scale + 0.5) for place in (x0, y0))
    right, below = whole.bounds[2:]
    # To the nearest pixel, but none that the slide does not fill.
    width = min(round((x1 - x) / scale), math.floor((right - x) / scale + 1e-6))
    height = min(round((y1 - y) / scale), math.floor((below - y) / scale + 1e-6))
    return Cut(x, y, max(1, width), max(1, height), scale, outline)
