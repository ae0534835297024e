"""Packs tiles into one file that opens in milliseconds and is read at the speed of memory.

    python tools/dataset_converters/pack_tiles.py kidney/ more_tiles.csv -o kidney.safetensors --size 224 --mpp 0.5
    python tools/dataset_converters/pack_tiles.py slides/ -o kidney.safetensors --size 224 --mpp 0.5 \\
        --tiles-per-slide 500 --seed 0 --patients patients.csv
    python tools/dataset_converters/pack_tiles.py --verify kidney.safetensors

A source is a folder (its tiles.csv, or all below it where it has none), a CSV as `TileClassification` reads it (only
`path` is needed; label, patient and slide are kept), a picture or a slide. A picture of the tile's size becomes a tile;
a larger one is cut into a grid of whole tiles, and what is left over at its right and lower edge is dropped and
counted. Of slides random places over tissue are taken; they may overlap. Slides and folders say nothing of patients:
--patients takes a table of them, as the other converters do, with names as the files have them, with or without ending.
`UnlabelledTiles` reads the file, and so does anything that reads safetensors.
"""

import argparse
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pathzoo.errors import ConfigError, DataError, PathzooError
from pathzoo.phantom_mark import any_phantom

#: Pictures that are decoded ahead of the writing.
_AHEAD, _THREADS = 8, 4


class _Job(NamedTuple):
    """A picture or slide, the left upper corners (x, y) of its tiles in pixels of the result, and how it is read."""

    info: dict[str, Any]
    corners: list[tuple[int, int]]
    tiles: Callable[[], Iterator[np.ndarray]]
    mpp: float | None
    whole: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status (0, or 2 for bad input, with nothing written)."""
    args = _parser().parse_args(argv)
    try:
        print(_verify(args.verify) if args.verify else run(args))
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run(args: argparse.Namespace) -> str:
    """Packs as the arguments say; a sentence on what was written.

    Raises:
        ConfigError, DataError, SlideError: bad arguments or sources; nothing is written.
    """
    from pathzoo.datasets.packed_writer import packed_writer

    _check(args)
    jobs, dropped = _jobs(args)
    n = sum(len(job.corners) for job in jobs)
    labels = sorted({job.info["label"] for job in jobs} - {None})
    classes = tuple(args.classes or labels)
    strange = [label for label in labels if label not in classes]
    if strange:
        raise DataError(f"label {strange[0]!r} is none of --classes {' '.join(classes)}: name it too, or correct it")
    rows = []
    phantom = any_phantom(job.info["img_path"] for job in jobs)
    with packed_writer(args.out, n, (args.size, args.size), classes, phantom) as writer, _progress(n) as advance:
        for job, tiles in _in_order(jobs):
            for corner, tile in zip(job.corners, tiles, strict=True):
                values = _values(job, corner, classes, args.size)
                writer.add(tile, **values)
                rows.append(values)
                advance()
    patients = {row["patient"] for row in rows} - {None}
    text = f"{args.out}: {n} tiles of {args.size} px from {len(jobs)} files, {len(patients)} known patients"
    unknown = sum(row["patient"] is None for row in rows)
    text += f", {unknown} tiles without one" if unknown else ""
    cut = sum(not job.whole for job in jobs if job.info["kind"] == "picture")
    return text + (f"; {cut} pictures were cut, which drops {dropped:.1%} of all pixels at edges" if cut else "")


def _check(args: argparse.Namespace) -> None:
    args.source = [*args.source, *([args.csv] if args.csv else [])]
    if not args.source or not args.out:
        raise ConfigError("give one or several sources and -o FILE.safetensors, or --verify FILE")
    for name in ("size", "tiles_per_slide"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: give a whole number above 0")
    if (args.mpp is None) == (not args.keep_pixels):
        raise ConfigError("give either --mpp F, the microns per pixel of the tiles, or --keep-pixels, pictures as is")
    for name in ("mpp", "source_mpp"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"--{name.replace('_', '-')} {value}: give microns per pixel, above 0")


def _states_mpp(path: str) -> bool:
    """Whether a slide's file says its resolution; one that cannot be opened is told of later."""
    from pathzoo.wsi.slide import Slide

    try:
        with Slide(path) as slide:
            return slide.mpp is not None
    except PathzooError:
        return False


def _jobs(args: argparse.Namespace) -> tuple[list[_Job], float]:
    """What is to be read, all of it checked; and the part of the pictures' pixels that is dropped."""
    from pathzoo.datasets import drawn_regions
    from pathzoo.datasets.inventory import scan_images
    from pathzoo.datasets.patient_table import state_patients
    from pathzoo.datasets.slide_places import survey_slides
    from pathzoo.datasets.unlabelled_sources import list_tiles

    infos, stores = list_tiles(args.source)
    if stores:
        raise ConfigError(f"{next(iter(stores))} is packed already; UnlabelledTiles takes several stores at once")
    for warning in state_patients(infos, args.patients) if args.patients else ():
        print(warning, file=sys.stderr)
    for info in infos:
        if args.source_mpp and info["mpp"] is None and not (info["kind"] == "slide" and _states_mpp(info["img_path"])):
            info["mpp"] = args.source_mpp
    pictures, slides = ([info for info in infos if info["kind"] == kind] for kind in ("picture", "slide"))
    drawn_regions.refuse_as_data([info["img_path"] for info in pictures], "all", drawn_regions.LEAVE_OUT)
    if slides and args.tiles_per_slide is None:
        raise ConfigError(f"{slides[0]['img_path']} is a slide: say by --tiles-per-slide how many are taken")
    records = scan_images([info["img_path"] for info in pictures])
    bad = [record for record in records if record.error]
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise DataError(f"{bad[0].path}: {bad[0].error}{more}: restore it, or take it out of the source")
    found = [_picture_job(info, record, args) for info, record in zip(pictures, records, strict=True)]
    pixels = sum(record.width * record.height / job[1] ** 2 for record, job in zip(records, found, strict=True))
    kept = sum(len(job.corners) for job, _ in found) * args.size**2
    for record, info in zip(survey_slides(slides, args.size, args.mpp, args.seed), slides, strict=True):
        if record.failure is not None:
            raise record.failure
        found.append((_slide_job(info, record.places, args.tiles_per_slide), 1.0))
    return [job for job, _ in found], max(0.0, 1 - kept / pixels) if pixels else 0.0


def _picture_job(info: dict[str, Any], record: Any, args: argparse.Namespace) -> tuple[_Job, float]:
    from pathzoo.datasets.tile_windows import pixel_ratio, size_at
    from pathzoo.datasets.transforms.geometry import resample
    from pathzoo.datasets.transforms.loading import read_rgb

    side, ratio = args.size, pixel_ratio(info, args.mpp)
    size = size_at(record.width, record.height, ratio)
    if min(size) < side:
        at = "" if ratio == 1 else f" at {args.mpp:g} um/px"
        raise DataError(
            f"{info['where']}: {info['item']} has {size[0]} x {size[1]} px{at}, smaller than a tile of {side} px: take "
            "it out of the source, or pack smaller tiles"
        )
    corners = [(x, y) for y in range(0, size[1] - side + 1, side) for x in range(0, size[0] - side + 1, side)]

    def tiles() -> Iterator[np.ndarray]:
        picture = resample(read_rgb(info["img_path"]), size)
        return (picture[y : y + side, x : x + side] for x, y in corners)

    mpp = info["mpp"] if ratio == 1 else args.mpp
    whole = size == (side, side)
    return _Job(info | {"sha256": record.sha256, "ratio": ratio}, corners, tiles, mpp, whole), ratio


def _slide_job(info: dict[str, Any], places: Any, count: int) -> _Job:
    corners = list(dict.fromkeys(places.place(0, number) for number in range(count)))
    return _Job(
        info | {"sha256": None}, corners, lambda: (places.read(x, y) for x, y in corners), places.mpp, whole=False
    )


def _values(job: _Job, corner: tuple[int, int], classes: tuple[str, ...], side: int) -> dict[str, Any]:
    """What the store says of a tile."""
    info, (x, y) = job.info, corner
    if info["kind"] == "slide":
        place: tuple[int | None, int | None] = (x, y)
    elif job.whole:
        place = (info["x"], info["y"])
    else:  # in the picture's own pixels; not known where the picture is itself a piece of a slide
        place = (None, None) if info["x"] is not None else (round(x * info["ratio"]), round(y * info["ratio"]))
    return {
        "item": info["item"] if job.whole else f"{info['item']}#x={x},y={y}",
        "patient": info["patient"],
        "slide": info["slide"],
        "label": -1 if info["label"] is None else classes.index(info["label"]),
        "mpp": job.mpp,
        "x": place[0],
        "y": place[1],
        "source_sha256": info["sha256"],
    }


def _in_order(jobs: Sequence[_Job]) -> Iterator[tuple[_Job, Iterator[np.ndarray]]]:
    """Every job with its tiles, in order; pictures are decoded some ahead, in threads. Memory stays bounded."""
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: deque = deque()
        for job in jobs:
            waiting.append((job, pool.submit(job.tiles)))
            if len(waiting) > _AHEAD:
                first, decoded = waiting.popleft()
                yield first, decoded.result()
        while waiting:
            first, decoded = waiting.popleft()
            yield first, decoded.result()


def _verify(path: Path) -> str:
    from pathzoo.datasets.packed_tiles import PackedTiles

    store = PackedTiles(path)
    with _progress(len(store)) as advance:
        store.verify(lambda done, total: advance())
    return (
        f"{path}: all {len(store)} tiles and what is known of them are as they were packed, digest {store.digest[:12]}"
    )


@contextmanager
def _progress(n: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal's standard error; gives what to call after every tile."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("tiles", total=n)
        yield lambda: bar.advance(task)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="*", type=Path, help="folders, CSVs, slides, pictures")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="the store, ends in .safetensors")
    parser.add_argument("--size", type=int, default=224, help="side of a tile in pixels (default: %(default)s)")
    parser.add_argument("--mpp", type=float, help="microns per pixel of the tiles; pictures are resampled to it")
    parser.add_argument("--keep-pixels", action="store_true", help="take pictures as they are, slides at level 0")
    parser.add_argument("--source-mpp", type=float, help="microns per pixel of what does not state its own")
    parser.add_argument("--tiles-per-slide", type=int, metavar="N", help="random places taken from each slide")
    parser.add_argument("--patients", type=Path, help="CSV: slide, patient; without it those of tables are known alone")
    parser.add_argument("--seed", type=int, default=0, help="of the random places (default: %(default)s)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="one more source: a table of tiles")
    parser.add_argument("--classes", nargs="+", help="names of the labels, in order (default: those found, sorted)")
    parser.add_argument("--verify", type=Path, metavar="FILE", help="check a store against its digests, and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
