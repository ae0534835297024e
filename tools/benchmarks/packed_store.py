"""Tiles per second from a packed store against a folder of PNGs, and how long a store of 150,000 takes to open.

    python tools/benchmarks/packed_store.py [--tiles 2000 --size 224] [--markdown FILE]

The same tiles of phantom tissue lie in both; every tile is read once in a drawn order, by one thread, out of the page
cache (no disk is measured). The ceiling is a copy of tiles that are in memory already. The store that is opened has
150,000 tiles of 224 px, 22.6 GB; its file is sparse, so that it takes no space.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from measuring import Spread, Table, in_turns, machine, publish, ratio, spread

from pathzoo.datasets.packed_tiles import COLUMNS, Layout, PackedTiles, store_metadata
from pathzoo.datasets.packed_writer import packed_writer
from pathzoo.datasets.phantom.tiles import draw_patient_tiles
from pathzoo.datasets.transforms.loading import read_rgb

_PER_PATIENT, _MPP = 100, 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0."""
    args = _parser().parse_args(argv)
    cv2.setNumThreads(1)
    where = machine(threads=1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw_both(folder, args.tiles, args.size)
        values, sizes = _measure_reading(folder, args)
        sparse = folder / "large.safetensors"
        write_sparse(sparse, args.large, 224)
        opened = {
            "opened": lambda: _timed(lambda: PackedTiles(sparse)),
            "opened, names read": lambda: _timed(lambda: PackedTiles(sparse).items[-1]),
        }
        times = in_turns(opened, args.rounds)
    rows = [
        (name, _rate(args.tiles, values[name]).show(), ratio(values["folder, OpenCV"], values[name]).show(), size)
        for name, size in sizes.items()
    ]
    columns = ("read from", "tiles/s", "times OpenCV's rate", "MB on disk")
    tables = [
        Table(f"{args.tiles} tiles of {args.size} px in random order", columns, rows),
        Table(
            f"A store of {args.large:,} tiles of 224 px (aim: under 1 s)",
            ("", "s"),
            [(name, spread(values).show()) for name, values in times.items()],
        ),
    ]
    note = (
        f"Medians (range) of {args.rounds} rounds in turns, after one to warm up; one thread, files in the page cache. "
        f"`read_rgb` is Pillow with pathzoo's checks, what `UnlabelledTiles` reads pictures with. {where}."
    )
    publish(tables, note, args.markdown)
    return 0


def draw_both(folder: Path, n: int, size: int) -> None:
    """Writes n tiles to folder/store.safetensors and to folder/png/NUMBER.png."""
    (folder / "png").mkdir()
    number = 0
    with packed_writer(folder / "store.safetensors", n, (size, size), phantom=True) as writer:
        for patient in range(-(-n // _PER_PATIENT)):
            for tile in draw_patient_tiles(0, "breast", patient, min(_PER_PATIENT, n - number), size, _MPP):
                writer.add(tile.picture, f"{number}.png")
                cv2.imwrite(str(folder / "png" / f"{number}.png"), cv2.cvtColor(tile.picture, cv2.COLOR_RGB2BGR))
                number += 1


def write_sparse(path: Path, n: int, size: int) -> None:
    """A store of n black tiles whose pixels take no space on most file systems; its digests are all zero."""
    names = {"items": [f"tiles/{i:06d}.png" for i in range(n)], "patients": [None] * n, "slides": [None] * n}
    text = json.dumps(names, separators=(",", ":")).encode()
    layout = Layout.of(n, size, size, len(text))
    columns = {name: np.zeros((n, *rest), kind) for name, (_, kind, rest) in COLUMNS.items()}
    header = json.dumps(layout.header(store_metadata(n, (size, size), (), True, columns, text))).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.seek(8 + len(header) + layout.tensors["text"][0])
        file.write(text)


def _measure_reading(folder: Path, args: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, str]]:
    store = PackedTiles(folder / "store.safetensors")
    paths = [str(folder / "png" / f"{number}.png") for number in range(args.tiles)]
    held = np.array([store[number] for number in range(args.tiles)])
    order = np.random.default_rng(0).permutation(args.tiles).tolist()
    for number in order[:10]:  # the arms read the same
        assert (read_rgb(paths[number]) == store[number]).all()
    readers: dict[str, Callable[[int], np.ndarray]] = {
        "memory (the ceiling)": lambda number: np.array(held[number]),
        "packed store": lambda number: np.array(store[number]),
        "folder, OpenCV": lambda number: cv2.cvtColor(cv2.imread(paths[number]), cv2.COLOR_BGR2RGB),
        "folder, read_rgb": lambda number: read_rgb(paths[number]),
    }
    arms = {
        name: lambda read=read: _timed(lambda: [read(number).shape for number in order])
        for name, read in readers.items()
    }
    packed, pngs = store.path.stat().st_size / 1e6, sum(Path(path).stat().st_size for path in paths) / 1e6
    sizes = dict.fromkeys(readers, f"{pngs:.0f}") | {"memory (the ceiling)": "", "packed store": f"{packed:.0f}"}
    return in_turns(arms, args.rounds), sizes


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _rate(n: int, seconds: Sequence[float]) -> Spread:
    return spread([n / value for value in seconds])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=2000, help="tiles that are read (default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of a tile in pixels (default: %(default)s)")
    parser.add_argument("--large", type=int, default=150_000, metavar="N", help="tiles of the store that is opened")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
