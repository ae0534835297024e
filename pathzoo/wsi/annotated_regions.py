"""Annotated slides and images to a folder of regions with masks that `pathzoo.RegionSegmentation` reads."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import shapely

from pathzoo.errors import DataError, SlideError
from pathzoo.fileio import write_json
from pathzoo.phantom_mark import keep_mark
from pathzoo.wsi.annotation_sources import AnnotatedSlide, patients_unknown, refuse_same_names
from pathzoo.wsi.annotations import read_areas
from pathzoo.wsi.colors import class_colors
from pathzoo.wsi.names import slide_name
from pathzoo.wsi.outputs import atomic_folder, write_csv
from pathzoo.wsi.png_stream import write_png
from pathzoo.wsi.rasterising import IGNORE, Labels, rasterise
from pathzoo.wsi.region_areas import AreaRules, Cut, SortedAreas, plan_cuts, share_area, sort_areas
from pathzoo.wsi.slide import Slide

HEADER = ("image", "mask", "patient", "slide", "mpp", "x", "y")
#: Larger pictures are not read back: Pillow takes them for decompression bombs.
MAX_PIXELS = 178_956_970
_WHITE, _PALE = (255, 255, 255), (228, 228, 228)
#: Rows that are in memory at once.
_BAND_PIXELS = 1 << 22


@dataclass
class RegionReport:
    """What `cut_annotated_regions` did, in counts."""

    classes: tuple[str, ...]
    slides: int = 0
    labelled: int = 0
    unlabelled: int = 0
    #: Of the labelled regions, by mask value.
    pixels: Counter[int] = field(default_factory=Counter)
    #: (class below, class above) -> pixels that the class above took.
    overlaps: Counter[tuple[int, int]] = field(default_factory=Counter)
    #: Annotated areas by class name that were not asked for; "(no class)" for unclassified ones.
    ignored_areas: Counter[str] = field(default_factory=Counter)
    #: Slides with areas that lie outside of them altogether, slides without a region to cut, without a labelled pixel.
    astray: list[str] = field(default_factory=list)
    nothing_to_cut: list[str] = field(default_factory=list)
    slides_without_patient: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report as text, one fact a line."""
        total = sum(self.pixels.values())
        lines = [f"{self.labelled + self.unlabelled} regions from {self.slides} slides"]
        lines += [f"  without a label: {self.unlabelled}"] if self.unlabelled else []
        for value, name in [*enumerate(self.classes), (IGNORE, "ignored")]:
            lines.append(f"  {name}: {self.pixels[value]} px ({self.pixels[value] / max(1, total):.1%})")
        for (below, above), n in sorted(self.overlaps.items()):
            lines.append(f"overlapping areas, {self._name(above)} over {self._name(below)}: {n} px")
        lines += [f"annotated areas left out, class {name!r}: {n}" for name, n in sorted(self.ignored_areas.items())]
        if self.nothing_to_cut:
            lines.append(f"nothing to cut from {len(self.nothing_to_cut)} slides: {_some(self.nothing_to_cut)}")
        if self.astray:
            lines.append(
                f"warning: areas that lie wholly outside of {len(self.astray)} slides ({_some(self.astray)}): were "
                "they drawn on another file?"
            )
        return [*lines, *patients_unknown(self.slides_without_patient)]

    def _name(self, value: int) -> str:
        return self.classes[value] if value < len(self.classes) else "ignored"


def cut_annotated_regions(
    sources: Sequence[AnnotatedSlide],
    out: Path,
    rules: AreaRules,
    *,
    mpp: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> RegionReport:
    """Writes `out/images/*.png`, `out/masks/*.png`, `out/regions.csv` and `out/classes.json`, whole or not at all.

    A mask has the value of the class whose area holds the pixel's centre (see `AreaEdges`). A region none of whose
    pixels has a class, and a slide that nobody has annotated, which is cut whole, get no mask: the table's column is
    empty. The table has the columns image, mask (relative to `out`), patient (empty if unknown), slide (its name
    without ending), mpp (of the region's pixels, empty if unknown), x and y (level-0 corner).

    Args:
        sources: What to cut; names without endings must differ.
        out: A folder that does not exist yet.
        rules: What annotations stand for, and which parts are cut.
        mpp: Microns per pixel of the regions; a slide coarser than this is an error. None takes level 0 as it is.
        progress: Called with a line of text after each slide.

    Returns:
        Counts.

    Raises:
        SlideError: Unreadable slide or resolution that does not fit, a region of over 178 million pixels, `out`
            exists, two slides of one name.
        DataError: Unreadable annotations, no slide, or not one labelled pixel.
    """
    refuse_same_names(sources)
    if not sources:
        raise DataError("no slide with annotations was given; they are found by name: SLIDE.geojson or SLIDE.xml")
    report = RegionReport(rules.classes)
    rows: list[list[object]] = []
    with atomic_folder(out) as folder:
        for name in ("images", "masks"):
            (folder / name).mkdir()
        for source in sources:
            found = _cut_slide(source, folder, rules, mpp, report)
            rows += found
            report.slides += 1
            if progress is not None:
                progress(f"{source.slide.name}: {len(found)} regions")
        if not report.labelled:
            raise DataError(
                f"{out}: no pixel got a label: no area of class {', '.join(rules.classes)} lies in what was cut; "
                "check --classes, --cut and the annotations' classes"
            )
        write_csv(folder / "regions.csv", HEADER, rows)
        write_json(folder / "classes.json", _classes(rules))
        keep_mark(folder, [source.slide for source in sources])
    return report


def _cut_slide(
    source: AnnotatedSlide, folder: Path, rules: AreaRules, mpp: float | None, report: RegionReport
) -> list[list[object]]:
    name = slide_name(source.slide)
    rows: list[list[object]] = []
    with Slide(source.slide, mpp=source.mpp) as slide:
        target = slide.mpp if mpp is None else slide.resolve_mpp(mpp)
        scale = 1.0 if mpp is None or target is None or slide.mpp is None else target / slide.mpp
        if source.annotations is None:
            rules = AreaRules(rules.classes)  # cut whole, without a background: nobody has looked at it
            areas = SortedAreas()
            cuts = plan_cuts(areas, rules, slide.bounds, scale)
        else:
            areas = sort_areas(read_areas(source.annotations, slide.bounds[:2]), rules)
            cuts = plan_cuts(areas, rules, slide.bounds, scale)
            _note(areas, cuts, slide, name, report)
        if source.patient is None and cuts:
            report.slides_without_patient.append(name)
        for cut in cuts:
            stem = f"{name}_x{cut.x}_y{cut.y}" if rules.cut != "whole" else name
            if (folder / "images" / f"{stem}.png").exists():
                raise DataError(
                    f"{source.annotations}: two regions have their corner at ({cut.x}, {cut.y}); remove one"
                )
            _check_size(cut, source.slide)
            rows_at_once = max(1, _BAND_PIXELS // cut.width)
            bands = slide.bands(cut.x, cut.y, cut.width, cut.height, mpp, rows_at_once)
            write_png(folder / "images" / f"{stem}.png", bands, (cut.width, cut.height))
            labelled = _write_mask(folder / "masks" / f"{stem}.png", areas, cut, rules, report)
            mask = f"masks/{stem}.png" if labelled else ""
            resolution = "" if target is None else f"{target:.6g}"
            rows.append([f"images/{stem}.png", mask, source.patient or "", name, resolution, cut.x, cut.y])
    return rows


def _write_mask(path: Path, areas: SortedAreas, cut: Cut, rules: AreaRules, report: RegionReport) -> bool:
    """Writes a mask and counts its pixels; where none has a class there is no mask, and the answer is False."""
    box = cut.box
    drawn = [(cut.to_pixels(area), value) for area, value in areas.drawn if area.intersects(box)]
    if cut.outline is not None:
        beyond = shapely.box(0, 0, cut.width, cut.height) - cut.to_pixels(cut.outline)
        drawn += [(part, IGNORE) for part in shapely.get_parts(beyond) if part.geom_type == "Polygon"]
    background = IGNORE if rules.background is None else rules.classes.index(rules.background)
    overlaps: Counter[tuple[int, int]] = Counter()
    counts = np.zeros(256, np.int64)

    def bands() -> Iterator[Labels]:
        for band in rasterise(drawn, cut.width, cut.height, background, overlaps):
            counts[:] += np.bincount(band.reshape(-1), minlength=256)
            yield band

    palette = _palette(rules)
    write_png(path, bands(), (cut.width, cut.height), [*palette, *[_WHITE] * (256 - len(palette))])
    if not counts[:IGNORE].any():
        path.unlink()
        report.unlabelled += 1
        return False
    report.labelled += 1
    report.pixels.update({int(value): int(counts[value]) for value in np.flatnonzero(counts)})
    # What is ignored on purpose is no disagreement between annotations.
    report.overlaps.update({pair: n for pair, n in overlaps.items() if pair[1] != IGNORE})
    return True


def _note(areas: SortedAreas, cuts: Sequence[Cut], slide: Slide, name: str, report: RegionReport) -> None:
    x, y, width, height = slide.bounds
    whole = shapely.box(x, y, x + width, y + height)
    figures = [*(area for area, _ in areas.drawn), *areas.regions]
    report.ignored_areas.update(areas.left_out)
    if not all(share_area(figure, whole) for figure in figures):
        report.astray.append(name)
    if not cuts:
        report.nothing_to_cut.append(name)


def _check_size(cut: Cut, slide: Path) -> None:
    if cut.width * cut.height > MAX_PIXELS:
        raise SlideError(
            f"{slide}: a region of {cut.width} x {cut.height} px is more than the {MAX_PIXELS} that training reads "
            "back; give a coarser --mpp, or cut parts (--cut annotated or regions)"
        )


def _palette(rules: AreaRules) -> list[tuple[int, int, int]]:
    """The classes' colours; the background's is pale."""
    colors = class_colors([name for name in rules.classes if name != rules.background])
    return [colors.get(name, _PALE) for name in rules.classes]


def _classes(rules: AreaRules) -> dict[str, object]:
    colors = [list(color) for color in _palette(rules)]
    return {"format": 1, "classes": list(rules.classes), "colors": colors, "ignore_index": IGNORE}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if names[5:] else "")
