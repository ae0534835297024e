"""Is the overlap large enough? How much a segmenter's answer changes when the grid of tiles is shifted.

    python tools/analysis_tools/border_consistency.py MODEL SLIDE [--overlap 0 0.125 0.25 0.5] [--out FOLDER]

The same part of the slide is predicted with the grid at several origins, for each overlap. A segmenter that sees enough
around every pixel answers the same each time; where it does not, pixels near the borders of tiles change their class.
Told is the share of pixels that change, over all and by the distance to the nearest border of a tile of either grid;
choose the smallest overlap beyond which it falls no further. The part is read once, so that nothing but the tiling
differs.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pathzoo.errors import PathzooError
from pathzoo.wsi.blending import Blender, PlacedTile, canvas
from pathzoo.wsi.predictor import Predictor
from pathzoo.wsi.segmentation import check_maps, label_bands
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.slide_stain import fit_slide
from pathzoo.wsi.stain import StainTransform
from pathzoo.wsi.tiling import TileGrid, tile_grid

#: Distances to the nearest border of a tile, in pixels: classes from one value to the next.
EDGES = (0, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Consistency:
    """What shifting the grid changes, for one overlap."""

    overlap: float
    #: Pixels compared, and pixels whose class differs, by class of distance (see EDGES; the last is open).
    pixels: tuple[int, ...]
    changed: tuple[int, ...]

    @property
    def share(self) -> float:
        """Part of all pixels that change, 0..1."""
        return sum(self.changed) / max(1, sum(self.pixels))


def border_consistency(
    predictor: Predictor, image: np.ndarray, overlap: float, shifts: Sequence[float], batch_size: int = 8
) -> Consistency:
    """Predicts a picture with shifted grids of tiles and compares.

    A frame of one tile's size around the picture is predicted but not compared, so that every tile that counts holds
    real pixels only.

    Args:
        predictor: A segmenter.
        image: (H, W, 3) uint8 at its resolution, wider and higher than two tiles.
        overlap: Part of a tile that its neighbour covers too, 0 <= overlap < 1.
        shifts: Parts of the distance between two tiles, 0 < shift < 1; one comparison each, with the grid unshifted.
        batch_size: Tiles per call of the predictor.

    Raises:
        ValueError: The picture is too small.
    """
    (width, height), (rows, columns) = predictor.input.tile_size, image.shape[:2]
    if columns <= 2 * width or rows <= 2 * height:
        raise ValueError(f"the picture has {columns} x {rows} px; it needs over twice the tile's {width} x {height}")
    inner = slice(height, rows - height), slice(width, columns - width)
    base_grid, base = stitched(predictor, image, overlap, (0, 0), batch_size)
    base_distance = border_distance(base_grid, (columns, rows))[inner]
    pixels, changed = np.zeros(len(EDGES), np.int64), np.zeros(len(EDGES), np.int64)
    for shift in shifts:
        across, down = (max(1, round(stride * shift)) for stride in base_grid.stride)
        grid, labels = stitched(predictor, image, overlap, (across, down), batch_size)
        differs = labels[inner] != base[inner]
        distance = np.minimum(base_distance, border_distance(grid, (columns, rows))[inner])
        which = np.digitize(distance, EDGES[1:])
        pixels += np.bincount(which.ravel(), minlength=len(EDGES))
        changed += np.bincount(which[differs], minlength=len(EDGES))
    return Consistency(overlap, tuple(pixels.tolist()), tuple(changed.tolist()))


def stitched(
    predictor: Predictor, image: np.ndarray, overlap: float, shift: tuple[int, int], batch_size: int
) -> tuple[TileGrid, np.ndarray]:
    """Classes (H, W) uint8 of a picture, blended as over a slide, the grid moved left and up by `shift` pixels."""
    (rows, columns), (left, top) = image.shape[:2], shift
    grid = tile_grid((-left, -top, columns + left, rows + top), predictor.input.tile_size, 1.0, overlap)
    place = canvas(grid)
    blender = Blender(place, len(predictor.classes))
    labels = np.concatenate(list(label_bands(blender.blocks(_answers(predictor, image, grid, batch_size)), place)))
    return grid, labels[top:, left:]


def border_distance(grid: TileGrid, size: tuple[int, int]) -> np.ndarray:
    """(H, W) whole pixels from each pixel's centre to the nearest line on which tiles of the grid begin or end."""
    nearest = []
    for axis, length in enumerate(size):
        starts = np.unique(grid.corners[:, axis])
        lines = np.unique(np.concatenate([starts, starts + grid.tile_size[axis]]))
        centres = np.arange(length) + 0.5
        after = np.searchsorted(lines, centres).clip(1, len(lines) - 1)
        nearest.append(np.minimum(np.abs(centres - lines[after - 1]), np.abs(lines[after] - centres)))
    return np.minimum(nearest[1][:, None], nearest[0][None, :]).astype(np.int64)


def _answers(predictor: Predictor, image: np.ndarray, grid: TileGrid, batch_size: int):
    width, height = grid.tile_size
    corners, cells = grid.corners.tolist(), grid.cells.tolist()
    for first in range(0, len(grid), batch_size):
        numbers = range(first, min(first + batch_size, len(grid)))
        tiles = np.full((len(numbers), height, width, 3), 255, np.uint8)
        for tile, number in zip(tiles, numbers, strict=True):
            x, y = corners[number]
            part = image[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
            above, before = max(-y, 0), max(-x, 0)
            tile[above : above + part.shape[0], before : before + part.shape[1]] = part
        for number, values in zip(numbers, check_maps(predictor, predictor(tiles), tiles), strict=True):
            yield PlacedTile(*cells[number], values)


def read_part(slide: Slide, predictor: Predictor, region: Sequence[int] | None, size: int) -> np.ndarray:
    """The part that is predicted: `region` or the middle, at most `size` pixels a side.

    It is read at the model's resolution and, where the model asks for that, brought to its stain as a slide would be.
    """
    if predictor.input.mpp is None:
        raise PathzooError(f"model {predictor.name} states no resolution (mpp: null): it takes images, not slides")
    mpp = slide.resolve_mpp(predictor.input.mpp, predictor.input.mpp_tolerance)
    assert slide.mpp is not None
    down = mpp / slide.mpp
    x, y, width, height = region or slide.bounds
    columns, rows = (max(1, min(size, int(side / down))) for side in (width, height))
    x, y = x + round((width - columns * down) / 2), y + round((height - rows * down) / 2)
    image = slide.read(x, y, columns, rows, mpp)
    if (target := predictor.input.stain) is None:
        return image
    stain = StainTransform(fit_slide(slide, None, target.method, mpp=mpp), target)
    if stain.reason:
        print(f"the stain was left as it is: {stain.reason}", file=sys.stderr)
    return stain.apply(image)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table and writes border_consistency.csv and .png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name, name@version or folder of a segmenter")
    parser.add_argument("slide", type=Path)
    parser.add_argument("--overlap", type=float, nargs="+", default=[0.0, 0.125, 0.25, 0.5], help="0 <= overlap < 1")
    parser.add_argument("--shift", type=float, nargs="+", default=[0.5, 0.29], help="parts of a stride, 0 < shift < 1")
    parser.add_argument("--region", type=int, nargs=4, metavar=("X", "Y", "WIDTH", "HEIGHT"), help="level-0 pixels")
    parser.add_argument("--size", type=int, default=3072, help="longest side of what is predicted, in model pixels")
    parser.add_argument("--mpp", type=float, help="microns per level-0 pixel, in place of what the slide states")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the CSV and the plot")
    arguments = parser.parse_args(argv)
    wrong = [v for v in arguments.overlap if not 0 <= v < 1] + [v for v in arguments.shift if not 0 < v < 1]
    if wrong:
        parser.error(f"{wrong[0]} is out of range: overlaps are in 0 <= overlap < 1, shifts in 0 < shift < 1")
    from pathzoo.zoo.load import get_model

    arguments.out.mkdir(parents=True, exist_ok=True)  # before the work: it may not be writable
    try:
        model = get_model(arguments.model, arguments.device)
        if model.task != "segmentation":
            raise PathzooError(f"model {model.name}: its task is {model.task}; this is for segmentation")
        with Slide(arguments.slide, mpp=arguments.mpp) as slide:
            image = read_part(slide, model, arguments.region, arguments.size)
        rows = []
        for overlap in arguments.overlap:
            rows.append(border_consistency(model, image, overlap, arguments.shift, arguments.batch_size))
            print(f"overlap {overlap:g}: {rows[-1].share:.4%} of pixels change", file=sys.stderr, flush=True)
    except (PathzooError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(rows))
    write_rows(arguments.out / "border_consistency.csv", rows)
    draw(rows, f"{model.name} {model.version}").savefig(arguments.out / "border_consistency.png", dpi=150)
    return 0


def table(rows: Sequence[Consistency]) -> str:
    """Percent of pixels that change, by overlap and distance, and how many tiles it takes against none overlapping."""
    heads = [_range(i) for i in range(len(EDGES))]
    lines = ["overlap   tiles     all  " + " ".join(f"{head:>8}" for head in heads) + "  px to the nearest border"]
    for row in rows:
        shares = [f"{100 * c / n:8.4f}" if n else " " * 7 + "-" for c, n in zip(row.changed, row.pixels, strict=True)]
        lines.append(
            f"{row.overlap:7.3f} {1 / (1 - row.overlap) ** 2:6.2f}x {100 * row.share:7.4f}% " + " ".join(shares)
        )
    return "\n".join(lines)


def write_rows(path: Path, rows: Sequence[Consistency]) -> None:
    """One line per overlap and class of distance."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["overlap", "distance_from", "distance_to", "pixels", "changed", "share"])
        for row in rows:
            for i, (n, c) in enumerate(zip(row.pixels, row.changed, strict=True)):
                end = EDGES[i + 1] if i + 1 < len(EDGES) else ""
                writer.writerow([row.overlap, EDGES[i], end, n, c, f"{c / n:.8f}" if n else ""])


def draw(rows: Sequence[Consistency], title: str):
    """A figure: share of changed pixels over the distance to the nearest border, one line per overlap."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    furthest = max(i for row in rows for i, n in enumerate(row.pixels) if n)
    for row in rows:
        points = [(i, 100 * c / n) for i, (n, c) in enumerate(zip(row.pixels, row.changed, strict=True)) if n]
        axes.plot(*zip(*points, strict=True), marker="o", label=f"{row.overlap:g}: {_percent(row.share)} in all")
    axes.set(xlabel="pixels to the nearest border of a tile", ylabel="pixels whose class changes (%)", title=title)
    axes.set_xticks(range(furthest + 1), [_range(i) for i in range(furthest + 1)], fontsize=8)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(title="overlap")
    return figure


def _percent(share: float) -> str:
    return f"{share:.2%}" if not 0 < share < 1e-4 else "under 0.01%"


def _range(i: int) -> str:
    return f"{EDGES[i]}-{EDGES[i + 1] - 1}" if i + 1 < len(EDGES) else f"{EDGES[i]}+"


if __name__ == "__main__":
    sys.exit(main())
