"""What the converter to boxes writes beside tiles: the whole objects of slides, and the frame of its COCO documents."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pathzoo.wsi.annotation_sources import AnnotatedSlide
from pathzoo.wsi.box_rules import BoxRules
from pathzoo.wsi.names import slide_name
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.slide_objects import ObjectList

OBJECTS_HEADER = ("slide", "patient", "mpp", "object", "class", "x0", "y0", "x1", "y1", "area", "ignore")


def objects_of(source: AnnotatedSlide, slide: Slide, listed: ObjectList) -> dict[str, Any]:
    """A slide's entry in objects.json."""
    width, height = slide.dimensions
    objects = [
        {
            "id": one.id,
            "class": one.name,
            "box": [round(value, 2) for value in one.box],
            "area": round(one.area, 2),
            "ignore": one.ignored,
        }
        for one in listed.objects
    ]
    known = {"slide": slide_name(source.slide), "patient": source.patient, "mpp": slide.mpp}
    return {**known, "width": width, "height": height, "objects": objects}


def object_rows(slides: Sequence[Mapping[str, Any]]) -> Iterator[list[object]]:
    """The rows of objects.csv, of the entries of slides."""
    for slide in slides:
        about = [slide["slide"], slide["patient"] or "", "" if slide["mpp"] is None else f"{slide['mpp']:.6g}"]
        for one in slide["objects"]:
            yield [*about, one["id"], one["class"], *one["box"], one["area"], int(one["ignore"])]


def categories(rules: BoxRules) -> list[dict[str, Any]]:
    """COCO's categories."""
    return [{"id": number, "name": name} for number, name in enumerate(rules.classes, 1)]


def told(rules: BoxRules) -> dict[str, Any]:
    """What a COCO document says of how it was made."""
    names = ("tile", "overlap", "mpp", "cut", "min_share", "background", "seed")
    return {name: list(value) if isinstance(value := getattr(rules, name), tuple) else value for name in names}
