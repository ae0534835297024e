"""Single objects on a slide (glomeruli), whichever file they were annotated in, each with what may be wrong with it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import shapely
from shapely.geometry.base import BaseGeometry

from pathzoo.nearest import did_you_mean
from pathzoo.wsi.annotation_sources import AnnotatedSlide, files_without_slide, list_sources, rows_without_slide
from pathzoo.wsi.annotations import ANNOTATION_SUFFIXES
from pathzoo.wsi.coco_objects import read_coco
from pathzoo.wsi.found_object import FoundObject
from pathzoo.wsi.names import slide_name
from pathzoo.wsi.object_files import find_objects
from pathzoo.wsi.slide import Slide

#: A label mask may stand beside slides as annotations do.
OBJECT_SUFFIXES = (*ANNOTATION_SUFFIXES, ".png")
#: Level-0 pixels by which an outline may leave the slide without a word: annotators draw up to the edge.
_SLACK = 1.0
#: A box must be so many level-0 pixels wide and high.
_LEAST = 1.0


@dataclass(frozen=True)
class SlideObject:
    """An object: its id on all slides of a data set, its class and its outline in level-0 pixels.

    Attributes:
        ignored: it neither counts nor punishes.
        stated: its area in square pixels, where a file says it of an object of which it gives but a box.
    """

    id: str
    name: str
    outline: BaseGeometry
    ignored: bool = False
    stated: float | None = None

    @property
    def area(self) -> float:
        """In square level-0 pixels: that of the outline, or what the file states where it gives but a box."""
        return float(self.outline.area) if self.stated is None else self.stated

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 in level-0 pixels."""
        x0, y0, x1, y1 = self.outline.bounds
        return x0, y0, x1, y1


@dataclass
class ObjectList:
    """The objects of one slide that can be used, and what was wrong with the others, or was put right in them."""

    objects: list[SlideObject] = field(default_factory=list)
    #: A line each.
    problems: list[str] = field(default_factory=list)
    #: Areas of classes that were to be left out, by class.
    left_out: dict[str, int] = field(default_factory=dict)


def find_object_sources(
    slides: Path, annotations: Path, patients: Path | None = None, mpps: Path | None = None
) -> tuple[list[AnnotatedSlide], list[Path]]:
    """The slides that have annotations, and the paths of those that have none.

    Args:
        slides: A folder of slides or pictures, or a CSV with a column `slide`.
        annotations: A folder of GeoJSON, ImageScope XML or label masks (PNG), files named after the slides; or one COCO
            file whose images are named after them.
        patients: CSV with columns slide, patient.
        mpps: CSV with columns slide, mpp.

    Raises:
        DataError: As `list_sources`, or an unreadable COCO file.
    """
    if annotations.is_dir():
        sources = list_sources(slides, annotations, patients, mpps, OBJECT_SUFFIXES)
    else:
        named = read_coco(annotations)
        bare = list_sources(slides, None, patients, mpps)
        sources = [
            AnnotatedSlide(s.slide, annotations if slide_name(s.slide) in named else None, s.patient, s.mpp)
            for s in bare
        ]
    return [s for s in sources if s.annotations], [s.slide for s in sources if not s.annotations]


def find_strays(
    slides: Sequence[Path], annotations: Path, patients: Path | None = None, mpps: Path | None = None
) -> list[str]:
    """What was given and belongs to none of the slides, a line for each kind; arguments as of `find_object_sources`.

    Raises:
        DataError: An unreadable table or COCO file.
    """
    if annotations.is_dir():
        found = {"annotations": files_without_slide(slides, annotations, OBJECT_SUFFIXES)}
    else:
        known = {slide_name(slide) for slide in slides}
        found = {f"images of {annotations.name}": [name for name in read_coco(annotations) if name not in known]}
    for table, column in ((patients, "patient"), (mpps, "mpp")):
        if table is not None:
            found[f"rows of {table.name}"] = rows_without_slide(slides, table, column)
    return [
        f"{what} without a slide: {len(names)} ({', '.join(names[:5])}{', ...' if names[5:] else ''})"
        for what, names in found.items()
        if names
    ]


def read_objects(
    source: AnnotatedSlide,
    slide: Slide,
    classes: Sequence[str],
    *,
    leave_out: Sequence[str] = (),
    clip: bool = True,
    min_pixels: int = 1,
) -> ObjectList:
    """Reads the objects of a slide and checks them against it.

    The slide is what lies in its bounds, as in prediction, QuPath and evaluation. An object that lies partly outside of
    it is cut at its edge, or left out where `clip` is False; one that lies wholly outside, has no area (a box under one
    pixel wide or high) or a class that was not asked for is left out. Each of these is a line of `problems`.

    Of a mask the 8-connected parts of a value are the objects; value k is the k-th class, 0 none; with one class every
    other value is that class. It is held in memory whole: some 3 bytes for each of its pixels, and 4 for each class. Of
    COCO files `pathzoo.wsi.coco_objects` says what is read.

    Args:
        source: The slide with its annotations.
        slide: The same, open.
        classes: Names of what is an object.
        leave_out: Classes that may occur and are no objects; "" stands for areas without a class.
        clip: Cut what lies partly outside.
        min_pixels: Smaller parts of a mask, in its own pixels, are left out without a word.

    Raises:
        DataError: An unreadable file, or one that was made for a picture of another size.
    """
    assert source.annotations is not None
    found = find_objects(source.annotations, source.slide, slide, classes, min_pixels)
    x, y, width, height = slide.bounds
    whole = shapely.box(x, y, x + width, y + height)
    roomy = shapely.box(x - _SLACK, y - _SLACK, x + width + _SLACK, y + height + _SLACK)
    size = f"the slide of {width} x {height} px"
    if slide.bounds != (0, 0, *slide.dimensions):
        size = f"the slide's bounds of {width} x {height} px at ({x}, {y})"
    result = ObjectList()
    for one in found:
        if one.name not in classes and (one.name or "") in leave_out:
            result.left_out[one.name or ""] = result.left_out.get(one.name or "", 0) + 1
            continue
        problem, usable = _problem(one, classes, whole, roomy, size)
        if problem:
            result.problems.append(f"{one.where}: {problem}")
        if one.outline is not None and usable and (clip or not problem):
            name = f"{slide_name(source.slide)}:{len(result.objects) + 1}"
            inside = whole.contains(one.outline)
            outline = one.outline if inside else cut_outline(one.outline, whole)
            assert one.name is not None
            result.objects.append(SlideObject(name, one.name, outline, one.ignored, one.area if inside else None))
    return result


def _problem(
    found: FoundObject, classes: Sequence[str], whole: BaseGeometry, roomy: BaseGeometry, size: str
) -> tuple[str, bool]:
    """What is wrong, "" where nothing is, and whether cutting at the slide's edge puts it right."""
    if found.note:
        return found.note, False
    if found.name is None:
        return "has no class", False
    if found.name not in classes:
        return f"unknown class {found.name!r}{did_you_mean(found.name, classes)}", False
    if found.outline is None or not _has_extent(found.outline):
        return "has no area", False
    box = ", ".join(f"{value:g}" for value in found.outline.bounds)
    if not _has_extent(cut_outline(found.outline, whole)):
        return f"box ({box}) lies outside of {size}", False
    return ("", True) if roomy.contains(found.outline) else (f"box ({box}) leaves {size}", True)


def _has_extent(outline: BaseGeometry) -> bool:
    if outline.is_empty:
        return False
    x0, y0, x1, y1 = outline.bounds
    return bool(min(x1 - x0, y1 - y0) >= _LEAST)


def cut_outline(outline: BaseGeometry, area: BaseGeometry) -> BaseGeometry:
    """What of an outline lies inside an area, without the lines and points where they only touch; may be empty."""
    parts = shapely.get_parts(shapely.intersection(outline, area))
    return shapely.union_all([part for part in parts if part.geom_type in ("Polygon", "MultiPolygon")])
