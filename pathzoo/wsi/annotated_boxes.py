"""Annotated slides to tiles with boxes: COCO files that `pathzoo.TileDetection`, or any other trainer, reads."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pathzoo.errors import DataError, LeakageError, SlideError
from pathzoo.phantom_mark import keep_mark
from pathzoo.wsi.annotation_sources import AnnotatedSlide, find_twins, refuse_same_names
from pathzoo.wsi.box_documents import OBJECTS_HEADER, categories, object_rows, objects_of, told
from pathzoo.wsi.box_report import BoxReport, ObjectFacts
from pathzoo.wsi.box_rules import BoxRules, TileBox, place_boxes
from pathzoo.wsi.names import slide_name
from pathzoo.wsi.outputs import atomic_folder, write_csv, write_picture
from pathzoo.wsi.overview import take_overview
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.slide_objects import ObjectList, SlideObject, read_objects
from pathzoo.wsi.tiling import tile_grid
from pathzoo.wsi.types import Mask

#: Of JPEG tiles; their colours are kept at full resolution.
_QUALITY = 95
#: Named COCO documents of a whole one: what `--split` writes beside it.
Divide = Callable[[Mapping[str, Any]], Mapping[str, Mapping[str, Any]]]


def write_box_tiles(
    sources: Sequence[AnnotatedSlide],
    out: Path,
    rules: BoxRules,
    *,
    divide: Divide | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> BoxReport:
    """Writes `out/tiles.json` (COCO), `out/objects.json` and `objects.csv`, whole or not at all.

    Tiles lie on the grid of whole-slide prediction: over the slide's bounds, those over tissue, the last of a row or
    column padded with white; so is the single tile of a slide that is smaller. Tiles with objects, or with ignored
    parts of them, are all kept, those without at the rate of `rules.background`; with `cut="drop"` a tile that holds
    nothing but dropped parts is left out: it is no background.

    Images of tiles.json have beside COCO's fields: slide, patient (null where unknown), x and y (level-0 corner),
    downsample (level-0 pixels per tile pixel), mpp (null where unknown), source ("file", or "slide" where `file_name`
    is the slide that the tile is to be read from, relative to `out`). Annotations have share (part of the object's area
    inside the tile), ignore (iscrowd says the same), object (id of the object on its slide). objects.json holds the
    whole objects slide by slide in level-0 pixels, for evaluation: the area is that of the outline, or what a COCO file
    states of an object that it gives but a box; "ignore" is true for objects that the file says to ignore, whose parts
    are ignored boxes in every tile.

    Args:
        sources: Slides with annotations; names without endings must differ.
        out: A folder that does not exist yet, unless `overwrite`.
        rules: Which tiles and boxes.
        divide: Makes further documents of the whole one by name, written as `out/NAME.json`.
        overwrite: Replace what this function wrote before, once the new is complete.
        progress: Called with a line of text after each slide.

    Raises:
        SlideError: Unreadable slide or resolution that does not fit, two slides of one name, `out` exists (with
            `overwrite`: and holds something else, or the slides).
        DataError: Unreadable annotations or bad boxes, bad rules, no slide, or not one object.
        LeakageError: With `divide`, one slide's bytes under two patients.
    """
    rules.check()
    if overwrite:
        _refuse_others_work(out, [source.slide for source in sources])
    refuse_same_names(sources)
    if not sources:
        raise DataError(
            "no slide with annotations was given; they are found by name: SLIDE.geojson, SLIDE.xml, SLIDE.png (mask), "
            "or an image of a COCO file"
        )
    report = BoxReport(rules.tile, rules.overlap)
    _note_twins(sources, report, refuse=divide is not None)
    lists = _read_all(sources, rules, report)
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": categories(rules)}
    document = {"info": {"description": "pathzoo: tiles of annotated slides", **told(rules)}, **document}
    slides: list[dict[str, Any]] = []
    with atomic_folder(out, overwrite) as folder:
        for source, listed in zip(sources, lists, strict=True):
            before = len(document["images"])
            with Slide(source.slide, mpp=source.mpp) as slide:
                slides.append(objects_of(source, slide, listed))
                _Cutter(source, slide, listed.objects, folder, out, rules, report).add_to(document)
            report.slides[slide_name(source.slide)] = source.patient
            if before == len(document["images"]):
                report.without_tiles.append(slide_name(source.slide))
            if progress is not None:
                progress(f"{source.slide.name}: {len(document['images']) - before} tiles")
        _note_unboxed(document, lists, report)
        parts = divide(document) if divide else {}
        report.tables = {"all": document, **parts}
        for name, table in {"tiles": document, **parts}.items():
            _write_json(folder / f"{name}.json", table)
        known = {"format": "pathzoo.objects", "version": 1, "classes": list(rules.classes)}
        _write_json(folder / "objects.json", {**known, "slides": slides})
        write_csv(folder / "objects.csv", OBJECTS_HEADER, object_rows(slides))
        keep_mark(folder, [source.slide for source in sources])
    return report


class _Cutter:
    """Tiles of one slide."""

    def __init__(
        self,
        source: AnnotatedSlide,
        slide: Slide,
        objects: Sequence[SlideObject],
        folder: Path,
        out: Path,
        rules: BoxRules,
        report: BoxReport,
    ) -> None:
        self._source, self._slide, self._objects, self._rules, self._report = source, slide, objects, rules, report
        self._folder, self._out = folder, out
        self._mpp = slide.mpp if rules.mpp is None else slide.resolve_mpp(rules.mpp)
        scale = 1.0 if rules.mpp is None or self._mpp is None or slide.mpp is None else self._mpp / slide.mpp
        self.grid = tile_grid(slide.bounds, rules.tile, scale, rules.overlap)
        _, _, width, height = slide.bounds
        if width < self.grid.extent[0] or height < self.grid.extent[1]:
            report.smaller_than_a_tile.append(slide_name(source.slide))
        if rules.picture:
            (folder / "images" / slide_name(source.slide)).mkdir(parents=True)

    def add_to(self, document: dict[str, Any]) -> None:
        rules, by_tile = self._rules, {number: list[TileBox]() for number in range(len(self.grid))}
        for part in place_boxes(self._objects, self.grid):
            by_tile[part.tile].append(part)
        self._note(by_tile)
        tissue = self._over_tissue()
        for number, parts in by_tile.items():
            kept = [part for part in parts if rules.cut != "drop" or self._ignored(part) or self._large(part)]
            if parts and not kept:
                self._report.only_dropped += 1
            elif kept or (tissue[number] and self._drawn(number)):
                self._add(document, number, kept)
            elif tissue[number]:
                self._report.background_left_out += 1
            else:
                self._report.without_tissue += 1

    def _add(self, document: dict[str, Any], number: int, parts: Sequence[TileBox]) -> None:
        x, y = (int(value) for value in self.grid.corners[number])
        name = slide_name(self._source.slide)
        file = Path(os.path.relpath(self._source.slide.resolve(), self._out.resolve())).as_posix()
        if self._rules.picture:
            file = f"images/{name}/x{x}_y{y}.{self._rules.picture}"
            try:
                pixels = self._slide.read(x, y, *self.grid.tile_size, self._mpp if self._rules.mpp else None)
            except SlideError:
                self._report.unreadable += 1
                return
            if self._rules.picture == "png":
                write_picture(self._folder / file, pixels)
            else:
                Image.fromarray(pixels).save(self._folder / file, quality=_QUALITY, subsampling=0)
        width, height = self.grid.tile_size
        number = len(document["images"]) + 1
        image: dict[str, Any] = {"id": number, "file_name": file, "width": width, "height": height, "slide": name}
        image |= {"patient": self._source.patient, "x": x, "y": y, "downsample": self.grid.downsample}
        image |= {"mpp": self._mpp, "source": "file" if self._rules.picture else "slide"}
        document["images"].append(image)
        for part in parts:
            document["annotations"].append(self._annotation(part, number, len(document["annotations"]) + 1))

    def _annotation(self, part: TileBox, image: int, number: int) -> dict[str, Any]:
        one, (x0, y0, x1, y1) = self._objects[part.object], part.box
        ignored = self._ignored(part)
        area = one.outline.area * part.share / self.grid.downsample**2
        box = [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)]
        known: dict[str, Any] = {
            "id": number,
            "image_id": image,
            "category_id": self._rules.classes.index(one.name) + 1,
        }
        known |= {"bbox": box, "area": round(area, 2), "iscrowd": int(ignored)}
        return known | {"ignore": int(ignored), "share": round(part.share, 4), "object": one.id}

    def _large(self, part: TileBox) -> bool:
        return part.share >= self._rules.min_share

    def _ignored(self, part: TileBox) -> bool:
        return self._objects[part.object].ignored or (self._rules.cut == "ignore" and not self._large(part))

    def _over_tissue(self) -> Mask:
        """Of each tile of the grid, whether it lies over tissue, as prediction sees it."""
        mask = take_overview(self._slide, isolate=False).tissue
        if mask is None:
            return np.ones(len(self.grid), np.bool_)
        grid = tile_grid(self._slide.bounds, self._rules.tile, self.grid.downsample, self._rules.overlap, mask)
        flat = np.zeros(self.grid.shape, np.bool_)
        flat[tuple(grid.cells.T)] = True
        return np.asarray(flat[tuple(self.grid.cells.T)], np.bool_)

    def _drawn(self, number: int) -> bool:
        x, y = self.grid.corners[number].tolist()
        text = f"{self._rules.seed}\0{slide_name(self._source.slide)}\0{x}\0{y}"
        draw = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big") / 2**56
        return draw < self._rules.background

    def _note(self, by_tile: Mapping[int, Sequence[TileBox]]) -> None:
        best = [0.0] * len(self._objects)
        for part in (part for parts in by_tile.values() for part in parts):
            best[part.object] = max(best[part.object], part.share)
        room = [side * self._rules.overlap for side in self.grid.extent]
        self._report.ignored += sum(one.ignored for one in self._objects)
        for one, share in zip(self._objects, best, strict=True):
            if one.ignored:
                continue
            x0, y0, x1, y1 = one.box
            larger = x1 - x0 > room[0] or y1 - y0 > room[1]
            size = (x1 - x0) / self.grid.downsample, (y1 - y0) / self.grid.downsample
            self._report.objects.append(ObjectFacts(size, larger, share))


def _refuse_others_work(out: Path, slides: Sequence[Path]) -> None:
    if out.exists() and not (out / "objects.json").is_file():
        raise SlideError(f"{out}: holds no tiles of this converter (no objects.json); choose another output folder")
    inside = [slide.name for slide in slides if out.resolve() in slide.resolve().parents]
    if inside:
        raise SlideError(f"{out}: holds {inside[0]}, which would be removed with it; choose another output folder")


def _note_unboxed(document: Mapping[str, Any], lists: Sequence[ObjectList], report: BoxReport) -> None:
    boxed = {annotation["object"] for annotation in document["annotations"] if not annotation["ignore"]}
    objects = [one for listed in lists for one in listed.objects]
    report.without_box = [one.id for one in objects if not one.ignored and one.id not in boxed]


def _note_twins(sources: Sequence[AnnotatedSlide], report: BoxReport, refuse: bool) -> None:
    for one, other in find_twins(sources):
        same = f"{one.slide.name} and {other.slide.name} hold the same bytes"
        if one.patient == other.patient:
            report.warnings.append(f"{same}: what they show counts twice; remove one")
            continue
        patients = " and ".join("(unknown)" if s.patient is None else repr(s.patient) for s in (one, other))
        text = f"{same}, but are of patients {patients}, so that a split may put them on two sides; remove one"
        if refuse:
            raise LeakageError(text)
        report.warnings.append(text)


def _read_all(sources: Sequence[AnnotatedSlide], rules: BoxRules, report: BoxReport) -> list[ObjectList]:
    """The objects of all slides; what is wrong is told of all slides at once."""
    lists = []
    for source in sources:
        with Slide(source.slide, mpp=source.mpp) as slide:
            if rules.mpp is not None and slide.mpp is None:
                raise SlideError(
                    f"{source.slide}: states no resolution (microns per pixel); give it in --mpp-csv, or take its "
                    "pixels as they are (--keep-pixels)"
                )
            if rules.mpp is not None:
                slide.resolve_mpp(rules.mpp)  # before anything is cut
            clip = rules.on_bad_box != "drop"
            lists.append(
                read_objects(
                    source, slide, rules.classes, leave_out=rules.leave_out, clip=clip, min_pixels=rules.min_pixels
                )
            )
        report.bad_boxes += lists[-1].problems
        report.left_out.update(lists[-1].left_out)
        if source.patient is None:
            report.slides_without_patient.append(slide_name(source.slide))
    if report.bad_boxes and rules.on_bad_box == "error":
        shown = "; ".join(report.bad_boxes[:10]) + ("; ..." if report.bad_boxes[10:] else "")
        raise DataError(
            f"{len(report.bad_boxes)} boxes cannot be used: {shown}: correct them, name their classes in --classes or "
            "--leave-out, or choose --on-bad-box clip or drop"
        )
    if all(one.ignored for listed in lists for one in listed.objects):
        raise DataError(f"not one object of class {', '.join(rules.classes)} was found; check --classes")
    return lists


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, allow_nan=False), encoding="utf-8")
