"""Reading of tiles from a slide, against OpenSlide, tiffslide, cuCIM and pyvips: tiles per CPU-second and per second.

    python tools/benchmarks/slide_reading.py [--peer-python PYTHON] [--slide SLIDE ...] [--markdown FILE]

Three tasks over each slide: tiles of 1600 x 1200 pixels that overlap by a third, over all of it; patches of 512 pixels
side by side; and those patches that touch a disc of tissue on a tenth of the slide. Slides are drawn, 12288 x 9216
pixels as JPEG of RGB and as YCbCr 4:2:0, unless given. All read the same boxes, in the same order, and their pixels are
compared before (grey levels, mean and maximum over some of the tiles; decoders may enlarge chroma in other ways).

Ours is the tile stream, in this process and in one of its own. Peers run in processes of their own under PYTHON, the
same work taking turns with ours; which settings, says slide_reading_peers.py. An environment for them:

    uv venv peers && uv pip install --python peers/bin/python numpy openslide-python openslide-bin tiffslide \
        "pyvips[binary]" cucim-cu12

Tried with openslide-bin 4.0.1.2, tiffslide 3.0.1, pyvips-binary 8.18.7, cucim-cu12 26.10.0 (without a GPU). CPU seconds
count all threads and, of ours, the reading process. CPU seconds are compared, since how many cores a decoder uses is a
choice; wall seconds are those of `--threads` threads where there is such a choice.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tifffile
from measuring import Table, in_turns, machine, publish, ratio, spread
from slide_reading_peers import KEPT, PEERS, Box

from pathzoo.datasets.phantom import draw_slide
from pathzoo.errors import PathzooError
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tile_stream import read_tiles
from pathzoo.wsi.tiling import TileGrid, tile_grid

_SIZE, _DRAWN, _MPP = (12288, 9216), (3072, 2304), 0.5
_OURS, _OURS_APART = "pathzoo", "pathzoo, own process"
#: Decoders that differ by more are not doing the same work.
_LARGEST_MEAN = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0, or 2 for bad input."""
    arguments = _parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="pathzoo-benchmark-") as folder:
            slides = arguments.slide or _draw(Path(folder), arguments.scale)
            _run(slides, arguments, Path(folder))
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(slides: Sequence[Path], arguments: argparse.Namespace, folder: Path) -> None:
    peers = {name: _Peer(arguments.peer_python, name, arguments.threads) for name in PEERS}
    tables = []
    try:
        where = machine(threads=1)
        for path in slides:
            for task in _tasks(path, arguments.mpp):
                tables.append(_measure(path, task, peers, arguments, folder))
    finally:
        for peer in peers.values():
            peer.close()
    versions = ", ".join(dict.fromkeys(peer.version for peer in peers.values() if peer.version))
    note = (
        f"{arguments.rounds} rounds in turns after one to warm up; medians (range). {arguments.threads} threads where "
        f"there is a choice. {versions}. {where}"
    )
    publish(tables, note, arguments.markdown)


class _Task:
    """A grid over a slide, and the boxes in it that lie inside the slide, for peers that read nothing beyond."""

    def __init__(self, title: str, slide: Slide, grid: TileGrid) -> None:
        self.title, self.grid, self.mpp = title, grid, slide.mpp or _MPP
        width, height = slide.dimensions
        self.boxes: list[Box] = [
            (x, y, min(grid.tile_size[0], width - x), min(grid.tile_size[1], height - y))
            for x, y in grid.corners.tolist()
        ]


def _tasks(path: Path, mpp: float) -> Iterator[_Task]:
    with Slide(path, mpp=mpp) as slide:
        width, height = slide.dimensions
        y, x = np.mgrid[0:height:64, 0:width:64]
        radius = np.sqrt(0.1 * width * height / np.pi)
        disc = np.hypot(x - 0.4 * width, y - 0.5 * height) < radius
        yield _Task("1600 x 1200, a third overlapping", slide, tile_grid(slide.bounds, (1600, 1200), 1.0, 1 / 3))
        yield _Task("512 x 512", slide, tile_grid(slide.bounds, (512, 512), 1.0))
        yield _Task("512 x 512, a tenth of the slide", slide, tile_grid(slide.bounds, (512, 512), 1.0, mask=disc))


def _measure(path: Path, task: _Task, peers: "dict[str, _Peer]", arguments: argparse.Namespace, folder: Path) -> Table:
    """One table: every arm on one task of one slide."""
    walls: dict[str, list[float]] = {}
    differences, arms = {_OURS: "", _OURS_APART: ""}, {}

    def arm(name: str, read: Callable[[], dict[str, Any]]) -> Callable[[], float]:
        def once() -> float:
            found = read()
            walls.setdefault(name, []).append(found["tiles"] / found["seconds"])
            return found["tiles"] / found["cpu"]

        return once

    with Slide(path, mpp=arguments.mpp) as slide:
        sample = [slide.read(x, y, min(w, 256), min(h, 256)) for x, y, w, h in _sample(task.boxes)]
        for name, isolate in ((_OURS, False), (_OURS_APART, True)):
            arms[name] = arm(name, lambda isolate=isolate: _ours(slide, task, arguments.threads, isolate))
        for name, peer in peers.items():
            difference = peer.compare(path, task, sample, folder / "tiles.npy")
            if difference is not None:
                differences[name] = difference
                arms[name] = arm(name, lambda peer=peer: peer.read(path, task.boxes))
        print(f"{path.name}: {task.title}: {len(task.boxes)} tiles, {len(arms)} arms", file=sys.stderr)
        rates = in_turns(arms, arguments.rounds)
    rows = [
        (
            name,
            spread(rates[name]).show(),
            ratio(rates[_OURS], rates[name]).show(),
            spread(walls[name][-arguments.rounds :]).show(),
            differences[name],
        )
        for name in arms
    ]
    columns = ("", "tiles per CPU-second", "pathzoo / this", "tiles per second", "pixels: mean, max difference")
    return Table(f"{path.name}, {task.title} ({len(task.boxes)} tiles)", columns, rows)


def _ours(slide: Slide, task: _Task, threads: int, isolate: bool) -> dict[str, Any]:
    started, cpu, count = time.perf_counter(), _cpu_seconds(), 0
    for batch in read_tiles(slide, task.grid, task.mpp, 4, num_workers=threads, isolate=isolate):
        count += len(batch)
    return {"seconds": time.perf_counter() - started, "cpu": _cpu_seconds() - cpu, "tiles": count}


def _cpu_seconds() -> float:
    """Of this process and all below it, ended or not; peers are idle while ours are measured."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    below = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(one.ru_utime + one.ru_stime for one in used) + sum(one.user + one.system for one in below)


def _sample(boxes: Sequence[Box]) -> list[Box]:
    return [boxes[index] for index in np.linspace(0, len(boxes) - 1, KEPT).astype(int)]


class _Peer:
    """A process that reads with one peer; it starts with the first task and stays."""

    def __init__(self, python: str | None, name: str, threads: int) -> None:
        self.name, self.version, self._threads = name, "", threads
        script = Path(__file__).with_name("slide_reading_peers.py")
        self._process = subprocess.Popen(
            [python or sys.executable, str(script), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def read(self, path: Path, boxes: Sequence[Box], keep: Path | None = None) -> dict[str, Any]:
        """Has all boxes read; what the process says about it."""
        asked = {"path": str(path), "boxes": boxes, "threads": self._threads, "keep": keep and str(keep)}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "it died"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def compare(self, path: Path, task: _Task, sample: Sequence[np.ndarray], keep: Path) -> str | None:
        """How far its pixels are from ours; None where it cannot read the slide, or reads something else."""
        if self._process.poll() is not None:
            return None
        try:
            self.version = self.read(path, _sample(task.boxes), keep)["version"]
        except RuntimeError as error:
            print(f"{self.name}: left out: {error}", file=sys.stderr)
            return None
        apart = np.abs(np.load(keep).astype(int) - np.concatenate([tile.ravel() for tile in sample]))
        shown = f"{apart.mean():.2f}, {apart.max()}"
        if apart.mean() > _LARGEST_MEAN:
            print(f"{self.name}: left out: its pixels differ by {shown} grey levels", file=sys.stderr)
            return None
        return shown

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def _draw(folder: Path, scale: float) -> list[Path]:
    """The two slides: a drawn piece, mirrored side by side, with noise of its own everywhere."""
    print("drawing slides ...", file=sys.stderr)
    piece, _ = draw_slide(0, _DRAWN, _MPP, pieces=2)
    width, height = (max(1600, round(side * scale)) for side in _SIZE)
    noise = np.random.default_rng(0).integers(-6, 7, (1024, 1024, 3), dtype=np.int16)

    def tiles() -> Iterator[np.ndarray]:
        for y in range(0, height, 256):
            for x in range(0, width, 256):
                rows = _mirrored(np.arange(y, y + 256), len(piece))
                columns = _mirrored(np.arange(x, x + 256), piece.shape[1])
                part = piece[np.ix_(rows, columns)].astype(np.int16)
                dy, dx = (x * 7 + y * 3) % 768, (x * 5 + y * 11) % 768
                yield np.clip(part + noise[dy : dy + 256, dx : dx + 256], 0, 255).astype(np.uint8)

    paths = []
    for name, settings in {
        "rgb": {"photometric": "rgb", "subsampling": (1, 1)},
        "ycbcr420": {"photometric": "ycbcr", "subsampling": (2, 2)},
    }.items():
        paths.append(folder / f"{name}.tif")
        tifffile.imwrite(
            paths[-1],
            tiles(),
            shape=(height, width, 3),
            dtype=np.uint8,
            tile=(256, 256),
            compression="jpeg",
            compressionargs={"level": 80},
            resolution=(1e4 / _MPP, 1e4 / _MPP),
            resolutionunit="CENTIMETER",
            metadata=None,
            **settings,
        )
    return paths


def _mirrored(places: np.ndarray, length: int) -> np.ndarray:
    places = places % (2 * length)
    return np.where(places < length, places, 2 * length - 1 - places)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slide", type=Path, action="append", help="a slide to read, any number of times; else drawn")
    parser.add_argument("--mpp", type=float, default=_MPP, help="microns per pixel that slides are taken to have")
    parser.add_argument("--peer-python", metavar="PYTHON", help="interpreter that has the peers; this one if not given")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the drawn slides' sides, for a quick look")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
