"""A small classifier over a slide, end to end, against the loop that a user would write.

    python tools/benchmarks/slide_prediction.py [--slide PATH] [--markdown FILE]

The network (timm's, random weights) takes tiles of `--tile` px over the tissue. Three cases:

- own: at the slide's own resolution, where the network bounds the run on a CPU unless it is very light;
- scan: a slide as scanners write them (levels 4 times apart, its pixels half as wide) for a model of twice its pixel
  size, the common pair of 40x scans and 20x models;
- coarse: at `--coarse` times the pixel size of a slide of one level, where reading bounds the run and the thumbnail for
  the tissue takes a decoding of the whole file.

In each, in turns and every arm in a process of its own, its libraries imported, its network warmed up and, of ours, the
reading process started before the time is taken, as `pathzoo predict` does while the model is loaded:

- bare: the network alone on tiles in memory, the ceiling;
- pathzoo: `predict_slide` with all it does (tissue, reading, network, CSV, GeoJSON, overlay);
- loop: openslide and a PyTorch DataLoader over the very same tiles (found for it beforehand), area resampling by
  OpenCV, the same network and batches; probabilities are kept in memory and nothing is written;
- tiatoolbox's PatchPredictor with the same network and resolution, where `--peer-python` names an interpreter that has
  it (2.1): it finds the tissue itself, so it may take a few tiles more or less, and writes a zarr store.

Beside all of pathzoo stands its part that does what the loop does, from tiles to probabilities, out of the same runs.
Peak memory is that of the process itself, without its reading process or workers.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from measuring import Table, in_turns, machine, publish, ratio, spread

from pathzoo.datasets.phantom import write_slide

_ARMS = {"bare": "bare network (ceiling)", "pathzoo": "pathzoo, all of it", "loop": "openslide + DataLoader"}
_CASES = ("own", "scan", "coarse")
_TIATOOLBOX = {"tiatoolbox": "tiatoolbox 2.1 PatchPredictor"}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0. With --arm: runs one arm and prints its figures as JSON."""
    arguments = _parser().parse_args(argv)
    if arguments.arm:
        print(json.dumps(run_arm(arguments)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        tables = []
        for name in arguments.case or _CASES:
            factor = {"own": 1.0, "scan": 2.0, "coarse": arguments.coarse}[name]
            slide = arguments.slide or _drawn(Path(folder), arguments.side, levels=name == "scan")
            title = {"own": "own: at the slide's own resolution", "scan": "scan: a pyramid at twice its pixel size"}
            default = f"coarse: at {factor:g} times the pixel size of a slide of one level"
            tables.append(_case(title.get(name, default), slide, factor, arguments, Path(folder)))
    note = (
        f"{arguments.network}, tiles of {arguments.tile} px, batches of {arguments.batch_size}, {arguments.workers} "
        f"workers; medians (range) of {arguments.rounds} rounds in turns. {machine()}."
    )
    publish(tables, note, arguments.markdown)
    return 0


def _case(title: str, slide: Path, factor: float, arguments: argparse.Namespace, folder: Path) -> Table:
    tiles = folder / f"tiles_{factor:g}.json"
    found = _lay(slide, factor, arguments.tile)
    tiles.write_text(json.dumps(found))
    arms = _ARMS | (_TIATOOLBOX if arguments.peer_python else {})
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}

    def measure(arm: str) -> Callable[[], float]:
        command = [sys.executable, __file__, "--arm", arm, "--tiles", str(tiles)]
        if arm in _TIATOOLBOX:
            script = Path(__file__).with_name("peer_tiatoolbox.py")
            command = [arguments.peer_python, str(script), "--mpp", str(found["mpp"])]
        command += ["--slide", str(slide)]
        for name in ("network", "tile", "batch_size", "workers"):
            command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]

        def once() -> float:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            figures[arm].append(json.loads(done.stdout.splitlines()[-1]))
            return float(figures[arm][-1]["tiles"] / figures[arm][-1]["seconds"])

        return once

    speeds = in_turns({name: measure(name) for name in arms}, arguments.rounds)
    alone = [figure["tiles"] / figure["alone"] for figure in figures["pathzoo"][-arguments.rounds :]]
    to_loop, to_ceiling = (ratio(alone, speeds[base]).show() for base in ("loop", "bare"))
    part = ("pathzoo, tiles to probabilities", spread(alone).show(), to_loop, to_ceiling, "")
    rows = []
    for name, text in arms.items():
        memory = max(figure["peak_mib"] for figure in figures[name])
        to_loop, to_ceiling = (ratio(speeds[name], speeds[base]).show() for base in ("loop", "bare"))
        rows.append((text, spread(speeds[name]).show(), to_loop, to_ceiling, f"{memory:.0f}"))
    columns = ("", "tiles/s", "ratio to the loop", "of the ceiling", "peak MiB")
    rows.insert(2, part)
    return Table(f"{title}, {len(found['corners'])} tiles", columns, rows)


def run_arm(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds, tiles and peak memory of one arm."""
    wanted = json.loads(arguments.tiles.read_text())
    predictor = _Network(arguments.network, arguments.tile, wanted["mpp"])
    run = {"bare": _bare, "pathzoo": _pathzoo, "loop": _loop}[arguments.arm]
    seconds, alone = run(predictor, wanted, arguments)
    return {"seconds": seconds, "alone": alone, "tiles": len(wanted["corners"]), "peak_mib": peak_mib()}


def peak_mib() -> float:
    """Largest resident set of this process; what getrusage says is the parent's where that was larger."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


class _Network:
    """timm's network with random weights, two classes, as a `pathzoo.wsi.predictor.Predictor`."""

    version, digest, task, classes = "0", "", "classification", ("benign", "malignant")

    def __init__(self, name: str, tile: int, mpp: float) -> None:
        import timm
        import torch

        from pathzoo.wsi.predictor import InputSpec

        torch.manual_seed(0)
        self.name, self.input = name, InputSpec((tile, tile), mpp)
        self.module = timm.create_model(name, num_classes=2).eval()

    def __call__(self, tiles: np.ndarray, /) -> Any:
        import torch

        from pathzoo.wsi.predictor import ClassProbs

        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(tiles)).permute(0, 3, 1, 2).float().div_(255)
            return ClassProbs(torch.softmax(self.module(batch), 1).numpy())


def _bare(predictor: _Network, wanted: dict[str, Any], arguments: argparse.Namespace) -> tuple[float, float]:
    n, size = len(wanted["corners"]), arguments.batch_size
    batch = np.random.default_rng(0).integers(0, 256, (size, arguments.tile, arguments.tile, 3), np.uint8)
    predictor(batch)
    started = time.perf_counter()
    for first in range(0, n, size):
        predictor(batch[: min(size, n - first)])
    seconds = time.perf_counter() - started
    return seconds, seconds


def _pathzoo(predictor: _Network, wanted: dict[str, Any], arguments: argparse.Namespace) -> tuple[float, float]:
    from pathzoo.wsi.isolation import prepare
    from pathzoo.wsi.run import predict_slide

    prepare()
    predictor(np.zeros((arguments.batch_size, arguments.tile, arguments.tile, 3), np.uint8))
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        result = predict_slide(
            arguments.slide, predictor, out, batch_size=arguments.batch_size, num_workers=arguments.workers
        )
        seconds = time.perf_counter() - started
    assert result.tiles == len(wanted["corners"])
    return seconds, result.seconds["model"] + result.seconds["waiting for tiles"]


def _loop(predictor: _Network, wanted: dict[str, Any], arguments: argparse.Namespace) -> tuple[float, float]:
    import cv2
    import openslide
    from torch.utils.data import DataLoader, Dataset

    class Tiles(Dataset):
        """Tiles by place; every worker opens the slide for itself."""

        slide: Any = None

        def __len__(self) -> int:
            return len(wanted["corners"])

        def __getitem__(self, number: int) -> np.ndarray:
            if self.slide is None:
                self.slide = openslide.OpenSlide(str(arguments.slide))
            side = round(arguments.tile * wanted["factor"])
            level = self.slide.get_best_level_for_downsample(wanted["factor"] + 1e-3)
            side = round(side / self.slide.level_downsamples[level])
            pixels = self.slide.read_region(tuple(wanted["corners"][number]), level, (side, side)).convert("RGB")
            if side == arguments.tile:
                return np.asarray(pixels)
            return cv2.resize(np.asarray(pixels), (arguments.tile,) * 2, interpolation=cv2.INTER_AREA)

    predictor(np.zeros((arguments.batch_size, arguments.tile, arguments.tile, 3), np.uint8))
    started = time.perf_counter()
    loader = DataLoader(Tiles(), batch_size=arguments.batch_size, num_workers=arguments.workers)
    probs = [predictor(batch.numpy()).probs for batch in loader]
    seconds = time.perf_counter() - started
    assert sum(map(len, probs)) == len(wanted["corners"])
    return seconds, seconds


def _lay(slide: Path, factor: float, tile: int) -> dict[str, Any]:
    """The tiles that pathzoo lays over the tissue, for the loop."""
    from pathzoo.wsi.overview import take_overview
    from pathzoo.wsi.slide import Slide
    from pathzoo.wsi.tiling import tile_grid

    with Slide(slide) as opened:
        assert opened.mpp is not None
        mpp = opened.resolve_mpp(opened.mpp * factor)
        grid = tile_grid(opened.bounds, (tile, tile), mpp / opened.mpp, 0.0, take_overview(opened).tissue)
        return {"corners": grid.corners.tolist(), "factor": mpp / opened.mpp, "mpp": mpp}


def _drawn(folder: Path, side: int, *, levels: bool) -> Path:
    """A phantom slide; without levels it is written again as one level of JPEG tiles."""
    drawn, flat = folder / "drawn.svs", folder / "slide.tif"  # tiatoolbox finds no mpp in a pyramid of another kind
    if not drawn.exists():
        write_slide(drawn, size=(side, side * 3 // 4))
    if levels:
        return drawn
    if not flat.exists():
        with tifffile.TiffFile(drawn) as file:
            pixels = file.pages[0].asarray()
        resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(flat, pixels, tile=(256, 256), photometric="rgb", compression="jpeg", **resolution)
    return flat


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slide", type=Path, help="a slide with an mpp, for all cases; by default phantoms are drawn")
    parser.add_argument("--side", type=int, default=8192, help="width of the phantom in pixels")
    parser.add_argument("--network", default="resnet10t")
    parser.add_argument("--tile", type=int, default=224)
    parser.add_argument("--coarse", type=float, default=4.0)
    parser.add_argument("--case", choices=_CASES, action="append", help="may be given again; by default all")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python", help="an interpreter that has tiatoolbox and timm")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--arm", choices=list(_ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--tiles", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
