"""What `write_box_tiles` made, in counts: the table of a study on detection."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pathzoo.wsi.annotation_sources import patients_unknown

_LISTED = 20


class ObjectFacts(NamedTuple):
    """Of one object: width and height in tile pixels, whether larger than the overlap, its largest share in a tile."""

    size: tuple[float, float]
    larger: bool
    best_share: float


@dataclass
class BoxReport:
    """Counts, and what a user should know."""

    tile: tuple[int, int]
    overlap: float
    #: COCO documents by name ("all", and those of a split).
    tables: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    objects: list[ObjectFacts] = field(default_factory=list)
    #: Objects that their file says to ignore; not among `objects`.
    ignored: int = 0
    #: All slides with annotations and their patients; those of them that gave no tile; objects without a box.
    slides: dict[str, str | None] = field(default_factory=dict)
    without_tiles: list[str] = field(default_factory=list)
    without_box: list[str] = field(default_factory=list)
    #: Tiles over tissue that were not drawn, without tissue, with dropped parts only, that cannot be decoded.
    background_left_out: int = 0
    without_tissue: int = 0
    only_dropped: int = 0
    unreadable: int = 0
    #: A line each.
    bad_boxes: list[str] = field(default_factory=list)
    #: Annotated areas by class that were to be left out.
    left_out: Counter[str] = field(default_factory=Counter)
    smaller_than_a_tile: list[str] = field(default_factory=list)
    slides_without_patient: list[str] = field(default_factory=list)
    #: What else to be warned of.
    warnings: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report as text: a table with a column for each part of the split, then one fact a line."""
        counts = {name: count_document(document) for name, document in self.tables.items()}
        patients = len(set(self.slides.values()) - {None})
        counts["all"] |= {"slides": len(self.slides), "patients": patients}  # those without a tile too
        rows = [["", *counts], *([key, *(str(c[key]) for c in counts.values())] for key in counts["all"])]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        lines.append(f"objects annotated on the slides: {len(self.objects)}")
        lines += [f"objects to be ignored, by their file: {self.ignored}"] if self.ignored else []
        lines.append(f"tiles without objects left out: {self.background_left_out} (over tissue, not drawn)")
        for what, n in (
            ("no tissue", self.without_tissue),
            ("only dropped parts of objects", self.only_dropped),
            ("not readable", self.unreadable),
        ):
            lines += [f"tiles left out, {what}: {n}"] if n else []
        lines += [f"areas left out, class {name or '(none)'!r}: {n}" for name, n in sorted(self.left_out.items())]
        return [*lines, *self._warnings()]

    def _warnings(self) -> list[str]:
        lines = [f"bad box: {line}" for line in self.bad_boxes[:_LISTED]]
        lines += [f"bad boxes, not listed: {len(self.bad_boxes) - _LISTED}"] if self.bad_boxes[_LISTED:] else []
        if self.smaller_than_a_tile:
            lines.append(
                f"smaller than a tile, padded with white: {len(self.smaller_than_a_tile)} slides "
                f"({_some(self.smaller_than_a_tile)})"
            )
        larger = [one for one in self.objects if one.larger]
        if larger:
            room = "x".join(f"{side * self.overlap:.0f}" for side in self.tile)
            most = "x".join(f"{max(one.size[axis] for one in self.objects):.0f}" for axis in (0, 1))
            nowhere = sum(one.best_share < 1 for one in self.objects)
            text = (
                f"{len(larger)} of {len(self.objects)} objects are larger than the overlap of {room} px (largest sides "
                f"{most} px)"
            )
            remedy = f"whole in no tile are {nowhere}: more --overlap or larger tiles help"
            lines.append(f"warning: {text}; {remedy}" if nowhere else f"{text}, but each stands whole in a tile here")
        if self.without_box:
            lines.append(
                f"warning: objects without a box in any tile: {len(self.without_box)} ({_some(self.without_box)})"
            )
        if self.without_tiles:
            why = "no object, and no tissue or no background drawn"
            lines.append(f"slides that gave no tile ({why}): {len(self.without_tiles)} ({_some(self.without_tiles)})")
        lines += [f"warning: {line}" for line in self.warnings]
        return [*lines, *patients_unknown(self.slides_without_patient)]


def count_document(document: Mapping[str, Any]) -> dict[str, int]:
    """Counts of a COCO document as `write_box_tiles` makes them.

    Returns:
        slides, patients (known ones), tiles, tiles with objects, with ignored parts alone, background tiles (with
        neither), objects (each once), boxes (ignored ones not), cut boxes (less than the whole object), ignored parts.
    """
    counted = [annotation for annotation in document["annotations"] if not annotation["ignore"]]
    shown = {annotation["image_id"] for annotation in document["annotations"]}
    with_objects = {annotation["image_id"] for annotation in counted}
    return {
        "slides": len({image["slide"] for image in document["images"]}),
        "patients": len({image["patient"] for image in document["images"]} - {None}),
        "tiles": len(document["images"]),
        "tiles with objects": len(with_objects),
        "tiles with ignored parts alone": len(shown - with_objects),
        "background tiles": len(document["images"]) - len(shown),
        "objects": len({annotation["object"] for annotation in counted}),
        "boxes": len(counted),
        "cut boxes": sum(annotation["share"] < 1 for annotation in counted),
        "ignored parts": len(document["annotations"]) - len(counted),
    }


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if names[5:] else "")
