"""Seconds per megapixel of `pathzoo predict` with a YOLOv5, against its bare network on the same tiles in memory.

    python tools/benchmarks/detection_slides.py [--size s] [--slide PATH] [--markdown FILE]

The model has random weights and finds little; it is published and loaded as any other. The slide is a phantom biopsy
where none is given. In turns:

- bare: the loaded model on the tiles of the slide, in memory, in the same batches: the ceiling;
- predict_slide: reading, tissue, network, merging and all files, with the model loaded;
- pathzoo predict: the whole command, with start-up and loading.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Table, in_turns, machine, publish, ratio, spread
from torch import nn

from pathzoo.apis.setup import setup
from pathzoo.errors import PathzooError
from pathzoo.wsi.slide import Slide

_ARMS = ("bare network", "predict_slide", "pathzoo predict")
_MODELS = Path(__file__).parents[2] / "configs" / "_base_" / "models"
#: Least score of a box, and the share of cells that have it.
_SCORE, _SHARE = 0.25, 0.001
_CARD = {
    "description": "Random weights, for a benchmark.",
    "organ": "kidney",
    "stain": "PAS",
    "licence": "CC-BY-4.0",
    "commercial_use": True,
    "attributions": [{"title": "None", "authors": "None", "licence": "CC-BY-4.0", "reference": "None"}],
    "limits": "Random weights.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0, or 2 for bad input."""
    arguments = _parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="pathzoo-benchmark-") as folder:
            _run(arguments, Path(folder))
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(arguments: argparse.Namespace, root: Path) -> None:
    from pathzoo.wsi.isolation import prepare
    from pathzoo.zoo.load import get_model

    where = machine(arguments.threads, arguments.device)  # first: it tells the load at the start
    setup()
    torch.set_num_threads(arguments.threads)
    slide = arguments.slide or draw(root, arguments.slide_size)
    with Slide(slide) as opened:
        mpp, (width, height) = opened.resolve_mpp(arguments.mpp or opened.mpp), opened.dimensions
        shrunk = (opened.mpp or mpp) / mpp
        picture = opened.read(width // 4, height // 4, width // 2, height // 2, mpp=mpp)
    folder = publish_random(root, arguments, mpp, picture)
    predictor = get_model(folder, arguments.device)
    prepare()
    keeping = Keeping(predictor)
    whole(slide, keeping, arguments)
    arms: dict[str, Callable[[], float]] = {
        "bare network": lambda: bare(predictor, keeping.batches, arguments.device),
        "predict_slide": lambda: whole(slide, predictor, arguments),
        "pathzoo predict": lambda: command(slide, folder, arguments),
    }
    seconds = in_turns(arms, arguments.rounds)
    tiles = sum(map(len, keeping.batches))
    areas = {
        "of the slide": width * height * shrunk**2 / 1e6,
        "of the tiles": tiles * arguments.tile[0] * arguments.tile[1] / 1e6,
    }
    note = (
        f"YOLOv5{arguments.size}, {tiles} tiles of {arguments.tile[0]} x {arguments.tile[1]} px that overlap by a "
        f"third ({areas['of the tiles']:.1f} megapixels) over the tissue of a slide of {areas['of the slide']:.1f} "
        f"megapixels at the model's {mpp:.3g} um per pixel; {keeping.found} boxes; batches of {arguments.batch_size}; "
        f"medians (range) of {arguments.rounds} rounds in turns after one to warm up. {where}."
    )
    publish([table(seconds, areas)], note, arguments.markdown)


def table(seconds: dict[str, list[float]], areas: dict[str, float]) -> Table:
    """Seconds, seconds for each megapixel of slide and of tiles, and the ratio to the bare network."""
    rows = []
    for name in _ARMS:
        per = [spread([value / area for value in seconds[name]]).show() for area in areas.values()]
        times = ratio(seconds[name], seconds["bare network"]).show()
        rows.append((name, spread(seconds[name]).show(), *per, times))
    columns = ("", "s", *(f"s per megapixel {what}" for what in areas), "times the bare network")
    return Table("Detection over a slide", columns, rows)


class Keeping:
    """A predictor that keeps the tiles it was asked for, and counts the boxes it answered."""

    def __init__(self, predictor: Any) -> None:
        self._predictor = predictor
        self.batches: list[np.ndarray] = []
        self.found = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)

    def __call__(self, tiles: np.ndarray, /) -> Any:
        """As the predictor."""
        self.batches.append(tiles.copy())
        answer = self._predictor(tiles)
        self.found += sum(map(len, answer.boxes))
        return answer


def bare(predictor: Any, batches: Sequence[np.ndarray], device: str) -> float:
    """Seconds of the model alone."""
    started = time.perf_counter()
    for tiles in batches:
        predictor(tiles)
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - started


def whole(slide: Path, predictor: Any, arguments: argparse.Namespace) -> float:
    """Seconds from the slide to all files."""
    from pathzoo.wsi.run import predict_slide

    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        predict_slide(slide, predictor, out, batch_size=arguments.batch_size, num_workers=arguments.workers)
        return time.perf_counter() - started


def command(slide: Path, model: Path, arguments: argparse.Namespace) -> float:
    """Seconds of the command that a user gives."""
    with tempfile.TemporaryDirectory() as out:
        words = [sys.executable, "-m", "pathzoo", "predict", "-i", slide, "-m", model, "-o", out]
        words += ["--batch-size", arguments.batch_size, "--num-workers", arguments.workers]
        environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
        started = time.perf_counter()
        done = subprocess.run(
            [*map(str, words), "--device", arguments.device], capture_output=True, text=True, env=environment
        )
        seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"pathzoo predict: {(done.stderr.strip().splitlines() or ['it fails'])[-1]}")
    return seconds


def draw(root: Path, size: Sequence[int]) -> Path:
    """A phantom biopsy at 1 um per pixel."""
    from pathzoo.datasets.phantom import write_biopsies

    write_biopsies(root / "biopsies", patients=1, size=(size[0], size[1]), mpp=1.0)
    [slide] = (root / "biopsies" / "slides").iterdir()
    return slide


def publish_random(root: Path, arguments: argparse.Namespace, mpp: float, picture: np.ndarray) -> Path:
    """A detector of one class with random weights that finds few objects; its boxes are the anchors as they are.

    Normalisation has the statistics of `picture` (H, W, 3), and so much is taken from objectness that but one cell in a
    thousand of it is an object.
    """
    from mmengine.config import Config

    from pathzoo.zoo.allowlist import build_from_data, to_data
    from pathzoo.zoo.publish import publish_model

    config = Config.fromfile(_MODELS / f"yolov5_{arguments.size}.py").model
    config.test_cfg.update(score_thr=_SCORE)
    model = to_data(config)
    torch.manual_seed(0)
    module = build_from_data(model)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # statistics of the one batch that follows
    for conv in module.bbox_head.convs:
        conv.weight.data.view(3, -1, conv.in_channels)[:, :4] = 0
        nn.init.zeros_(conv.bias)
    sides = [side // 32 * 32 for side in picture.shape[:2]]
    pixels = torch.from_numpy(picture[: sides[0], : sides[1]].copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        [maps] = module.train().bbox_head(module.extract_feat(pixels))
    rarely = torch.cat([raw[..., 4].flatten() for raw in maps]).quantile(1 - _SHARE)
    for conv in module.bbox_head.convs:
        conv.bias.data.view(3, -1)[:, 4] = np.log(_SCORE / (1 - _SCORE)) - rarely
    width, height = arguments.tile
    spec = {"tile_size": [width, height], "mpp": mpp, "mpp_tolerance": 0.1, "resize": {"kind": "mpp"}}
    about = {"task": "detection", "model": model, "classes": ["glomerulus"], "data": {"synthetic": True}}
    about |= {"model_input": spec | {"mean": [0.0] * 3, "std": [255.0] * 3}}
    (root / "train_run.json").write_text(json.dumps(about))
    torch.save({"state_dict": module.state_dict()}, root / "last.pth")
    return Path(publish_model(root / "last.pth", "benchmark-yolov5", "1.0.0", root / "zoo", _CARD))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("n", "s", "m", "l", "x"), default="s", help="of YOLOv5")
    parser.add_argument("--tile", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), default=(640, 640))
    parser.add_argument("--slide", type=Path, help="a slide with an mpp; by default a phantom is drawn")
    parser.add_argument("--slide-size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), default=(4096, 3072))
    parser.add_argument("--mpp", type=float, help="of the model; by default the slide's")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
