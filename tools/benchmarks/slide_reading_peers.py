"""Peers of `slide_reading.py`, each in a process of its own, under an interpreter that has them.

    PYTHON slide_reading_peers.py NAME

Reads one JSON object a line: `{"path", "boxes": [[x, y, width, height], ...], "threads", "keep": FILE.npy or null}`,
reads the boxes at level 0 in their order as (height, width, 3) uint8, and answers with `{"seconds", "cpu", "tiles",
"version"}`; `cpu` counts all threads. With `keep` it writes the corners of some tiles to that file, to be compared. The
handle is opened anew each time, and caches start empty.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

Box = tuple[int, int, int, int]
Read = Callable[[str, list[Box], int], Iterator[np.ndarray]]
_CACHE_BYTES = 1 << 30
#: Of each reading, so many tiles are kept for comparison.
KEPT = 5


def _openslide(path: str, boxes: list[Box], threads: int, cache: bool = False) -> Iterator[np.ndarray]:
    """The plain loop that most programs have: RGBA from OpenSlide, alpha dropped."""
    import openslide

    with openslide.OpenSlide(path) as slide:
        if cache:
            slide.set_cache(openslide.OpenSlideCache(_CACHE_BYTES))
        for x, y, width, height in boxes:
            yield np.ascontiguousarray(np.asarray(slide.read_region((x, y), 0, (width, height)))[..., :3])


def _openslide_cached(path: str, boxes: list[Box], threads: int) -> Iterator[np.ndarray]:
    """The same with room for all tiles of a row of the slide (OpenSlide's own cache holds 32 MiB)."""
    return _openslide(path, boxes, threads, cache=True)


def _tiffslide(path: str, boxes: list[Box], threads: int) -> Iterator[np.ndarray]:
    import tiffslide

    with tiffslide.TiffSlide(path) as slide:
        for x, y, width, height in boxes:
            yield slide.read_region((x, y), 0, (width, height), as_array=True)


def _cucim(path: str, boxes: list[Box], threads: int) -> Iterator[np.ndarray]:
    """With its cache in the process (its documentation's advice for overlapping regions), region by region."""
    from cucim import CuImage

    CuImage.cache("nocache")
    CuImage.cache("per_process", memory_capacity=_CACHE_BYTES >> 20)
    slide = CuImage(path)
    for x, y, width, height in boxes:
        yield np.asarray(slide.read_region((x, y), (width, height), 0))


def _cucim_batches(path: str, boxes: list[Box], threads: int) -> Iterator[np.ndarray]:
    """Its loader: many places at once, by several threads; boxes of one size together."""
    from cucim import CuImage

    CuImage.cache("nocache")
    CuImage.cache("per_process", memory_capacity=_CACHE_BYTES >> 20)
    slide = CuImage(path)

    def by_size() -> Iterator[tuple[Box, np.ndarray]]:
        for size in dict.fromkeys(box[2:] for box in boxes):
            same = [box for box in boxes if box[2:] == size]
            batches = slide.read_region([box[:2] for box in same], size, 0, batch_size=8, num_workers=threads)
            tiles = (tile for batch in batches for tile in _separate(np.asarray(batch)))
            yield from zip(same, tiles, strict=True)

    if len(boxes) > KEPT:
        yield from (tile for _, tile in by_size())  # those at the edges last
    else:
        found = dict(by_size())
        yield from (found[box] for box in boxes)


def _separate(batch: np.ndarray) -> np.ndarray:
    return batch if batch.ndim == 4 else batch[None]


def _vips_image(path: str) -> Any:
    import pyvips

    pyvips.cache_set_max(0)  # forget images of the round before, their decoded tiles with them
    pyvips.cache_set_max(100)
    return pyvips.Image.tiffload(path, page=0, access="random")


def _pyvips(path: str, boxes: list[Box], threads: int) -> Iterator[np.ndarray]:
    """Random access, a crop for each tile."""
    image = _vips_image(path)
    for x, y, width, height in boxes:
        yield image.crop(x, y, width, height).numpy()[..., :3]


def _pyvips_fetch(path: str, boxes: list[Box], threads: int) -> Iterator[np.ndarray]:
    """Random access through one region, in this thread."""
    import pyvips

    region = pyvips.Region.new(_vips_image(path))
    for x, y, width, height in boxes:
        yield np.frombuffer(region.fetch(x, y, width, height), np.uint8).reshape(height, width, -1)[..., :3]


def _pyvips_rows(path: str, boxes: list[Box], threads: int) -> Iterator[np.ndarray]:
    """A strip of the slide for each row of tiles, cut by numpy."""
    image = _vips_image(path)
    strip, top = np.empty(0), None
    for x, y, width, height in boxes:
        if (y, height) != top:
            strip, top = image.crop(0, y, image.width, height).numpy(), (y, height)
        yield np.ascontiguousarray(strip[:, x : x + width, :3])


PEERS: dict[str, Read] = {
    "openslide": _openslide,
    "openslide, 1 GiB cache": _openslide_cached,
    "tiffslide": _tiffslide,
    "cucim": _cucim,
    "cucim, batches": _cucim_batches,
    "pyvips, crop": _pyvips,
    "pyvips, fetch": _pyvips_fetch,
    "pyvips, rows": _pyvips_rows,
}
_PACKAGES = {"openslide": "openslide-bin", "cucim": "cucim-cu12", "pyvips": "pyvips-binary"}


def measure(tiles: Iterable[np.ndarray], keep: str | None, boxes: list[Box]) -> dict[str, Any]:
    """Takes all tiles; wall and CPU seconds of this process."""
    wanted = set(np.linspace(0, len(boxes) - 1, KEPT).astype(int).tolist()) if keep else set()
    kept, count = [], 0
    started, cpu = time.perf_counter(), time.process_time()
    for tile in tiles:
        if count in wanted:
            kept.append(tile[:256, :256].copy())
        count += 1
    result = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu, "tiles": count}
    if keep:
        np.save(keep, np.concatenate([tile.ravel() for tile in kept]))
    return result


def _version(name: str) -> str:
    from importlib.metadata import version

    package = name.split(",")[0]
    return f"{package} {version(_PACKAGES.get(package, package))}"


def main() -> int:
    """Serves until its input ends."""
    parser = argparse.ArgumentParser(description="Reads boxes for slide_reading.py: JSON in by the line, JSON out.")
    parser.add_argument("peer", choices=list(PEERS))
    name = parser.parse_args().peer
    # A library that prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        boxes = [tuple(box) for box in asked["boxes"]]
        try:
            answer = measure(PEERS[name](asked["path"], boxes, asked["threads"]), asked["keep"], boxes)
            answer["version"] = _version(name)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
