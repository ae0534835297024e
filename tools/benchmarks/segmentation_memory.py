"""Memory and time of segmenting a large slide, all of it, and whether memory grows with the slide's height.

    python tools/benchmarks/segmentation_memory.py [--width 40000 --heights 10000 40000] [--markdown FILE]

The slide is synthetic (a pattern of three classes that repeats, a tiled TIFF with levels) and so is the segmenter (a
table look-up of the green channel, so that the time is that of everything else). Each height runs in a process of its
own; the memory told is the largest sum of the resident sets of that process and its children, sampled four times a
second: pages that they share count several times.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import psutil
import tifffile
from measuring import Table, machine, publish

from pathzoo.wsi.predictor import InputSpec, SegProbs
from pathzoo.wsi.run import predict_slide

_TILE, _PERIOD, _MPP = 512, 2048, 0.5
#: Colour of glass, stroma and glands; their green channel tells them apart.
_COLORS = ((243, 243, 243), (226, 150, 190), (112, 60, 142))
_LIMIT_GIB = 2.0


class GreenTable:
    """A segmenter of three classes by the green channel alone."""

    name, version, digest, task = "green-table", "1.0.0", "", "segmentation"
    classes = ("background", "stroma", "gland")
    input = InputSpec((_TILE, _TILE), _MPP)

    def __init__(self) -> None:
        distance = np.abs(np.arange(256)[None] - np.array([color[1] for color in _COLORS])[:, None])
        scores = np.exp(-distance / 12)
        self._table = (scores / scores.sum(0)).astype(np.float32)

    def __call__(self, tiles: np.ndarray, /) -> SegProbs:
        """Probabilities (N, 3, H, W) of uint8 tiles (N, H, W, 3)."""
        probs = np.empty((len(tiles), 3, *tiles.shape[1:3]), np.float32)
        for tile, out in zip(tiles, probs, strict=True):
            green = np.ascontiguousarray(tile[..., 1])
            for table, channel in zip(self._table, out, strict=True):
                np.take(table, green, out=channel)
        return SegProbs(probs)


def write_slide(path: Path, width: int, height: int) -> None:
    """A slide of levels 1, 4 and 16 whose 2048-px pattern repeats: each of its tiles is encoded once."""
    pattern = draw_pattern()
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for down in (1, 4, 16):
            small = cv2.resize(pattern, (_PERIOD // down,) * 2, interpolation=cv2.INTER_AREA)
            repeats = max(1, _TILE // len(small))
            shape = (-(-height // down), -(-width // down))
            writer.write(
                _tiles(np.tile(small, (repeats, repeats, 1)), shape),
                shape=(*shape, 3),
                dtype=np.uint8,
                tile=(_TILE, _TILE),
                photometric="rgb",
                compression="adobe_deflate",
                subfiletype=int(down > 1),
                resolution=(1e4 / _MPP / down,) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )


def draw_pattern(seed: int = 0) -> np.ndarray:
    """(2048, 2048, 3) uint8: islands of stroma with glands, which have holes; nothing crosses the edges but stroma."""
    rng = np.random.default_rng(seed)
    image = np.full((_PERIOD, _PERIOD, 3), _COLORS[0], np.uint8)
    cv2.circle(image, (1024, 1024), 1100, _COLORS[1], -1)
    for x, y in rng.integers(100, _PERIOD - 100, (160, 2)).tolist():
        axes, angle = rng.integers(15, 70, 2).tolist(), float(rng.integers(0, 180))
        cv2.ellipse(image, (x, y), axes, angle, 0, 360, _COLORS[2], -1)
        cv2.ellipse(image, (x, y), [side // 3 for side in axes], angle, 0, 360, _COLORS[0], -1)
    return image


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 1 if memory reached 2 GiB."""
    arguments = _parser().parse_args(argv)
    if arguments.slide is not None:
        return _segment(arguments)
    where, rows, peaks = machine(1), [], []
    with tempfile.TemporaryDirectory(prefix="pathzoo-benchmark-", dir=arguments.folder) as folder:
        for height in arguments.heights:
            slide = Path(folder) / f"slide-{height}.tif"
            write_slide(slide, arguments.width, height)
            peak, found = _measured(slide, arguments)
            peaks.append(peak)
            sizes = [f"{slide.stat().st_size / 2**20:.0f}", *(f"{size / 2**20:.1f}" for size in found["bytes"])]
            speed = arguments.width * height / 1e6 / found["seconds"]
            size = f"{arguments.width} x {height}"
            rows.append((size, f"{peak:.2f}", f"{found['seconds']:.0f}", f"{speed:.1f}", *sizes, str(found["regions"])))
            slide.unlink()
    columns = ("pixels", "peak GiB", "s", "Mpx/s", "slide MiB", "mask.tif MiB", "GeoJSON MiB", "regions")
    title = f"Segmentation of all of a slide (aim: under {_LIMIT_GIB:g} GiB)"
    note = f"Tiles of {_TILE} px, overlap {arguments.overlap:g}, batches of {arguments.batch_size}. {where}."
    publish([Table(title, columns, rows)], note, arguments.markdown)
    return int(max(peaks) >= _LIMIT_GIB)


def _segment(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    result = predict_slide(
        arguments.slide,
        GreenTable(),
        arguments.slide.parent / "out",
        overwrite=True,
        tissue=False,
        overlap=arguments.overlap,
        batch_size=arguments.batch_size,
    )
    seconds = time.perf_counter() - started
    sizes = [(result.folder / name).stat().st_size for name in ("mask.tif", "prediction.geojson")]
    record = json.loads((result.folder / "predict_run.json").read_text())
    found = {"seconds": seconds, "bytes": sizes, "regions": record["outlines"]["regions"], "parts": result.seconds}
    print(json.dumps(found), flush=True)
    return 0


def _measured(slide: Path, arguments: argparse.Namespace) -> tuple[float, dict]:
    """Peak GiB of a process that segments `slide`, with its children, and what it printed."""
    options = ["--overlap", str(arguments.overlap), "--batch-size", str(arguments.batch_size)]
    command = [sys.executable, str(Path(__file__).resolve()), "--slide", str(slide), *options]
    process, peak = subprocess.Popen(command, stdout=subprocess.PIPE, text=True), 0
    family = psutil.Process(process.pid)
    while process.poll() is None:
        peak = max(peak, sum(_resident(member) for member in [family, *_children(family)]))
        time.sleep(0.25)
    text = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"segmenting {slide.name} ended with {process.returncode}")
    return peak / 2**30, json.loads(text.splitlines()[-1])


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def _tiles(pattern: np.ndarray, shape: tuple[int, int]) -> Iterator[bytes]:
    """Encoded tiles of a picture of `shape` that `pattern` (whole tiles) fills, row by row."""
    rows, columns = (side // _TILE for side in pattern.shape[:2])
    parts = pattern.reshape(rows, _TILE, columns, _TILE, 3).swapaxes(1, 2)
    encoded = [[bytes(imagecodecs.deflate_encode(tile.tobytes(), level=9)) for tile in row] for row in parts]
    for i in range(-(-shape[0] // _TILE)):
        for j in range(-(-shape[1] // _TILE)):
            yield encoded[i % rows][j % columns]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=40_000, help="of the slide in pixels")
    parser.add_argument("--heights", type=int, nargs="+", default=[10_000, 40_000], help="one slide each")
    parser.add_argument("--overlap", type=float, default=0.25, help="of the tiles, 0 <= overlap < 1")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="for the slide and the output, which are removed at the end")
    parser.add_argument("--slide", type=Path, help=argparse.SUPPRESS)  # what a measured process is called with
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
