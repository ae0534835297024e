"""Views for self-supervision, per second and core: HistologyViews against torchvision's transforms v2.

    python tools/benchmarks/views.py [--size PX] [--markdown FILE]

Each arm makes two views of tiles that lie decoded in memory, RGB uint8, and ends with uint8 tensors (3, size, size), in
one process and one thread; values are views per second of CPU time. The peer is SimCLR's recipe as torchvision's
documentation advises to write it, at the strengths of ours: the same crops (bilinear, without antialiasing, as ours),
flips, quarter turns, probabilities and blur. It runs on tensors and on Pillow's images; the faster is the peer.

torchvision has no stain jitter: its hue jitter, SimCLR's step in that place, stands for it, and is its costliest. The
rows "no hue" and "no stains" show both without. With a GPU, BatchedViews is measured on it too, in views per second.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import one_thread
from measuring import Table, in_turns, machine, publish, ratio, spread
from PIL import Image
from torchvision.transforms import v2

from pathzoo.apis.setup import setup
from pathzoo.errors import PathzooError

#: The strengths of all arms.
RECIPE: dict[str, Any] = {
    "zoom": (0.8, 1.25),
    "brightness": 0.2,
    "contrast": 0.2,
    "saturation": 0.2,
    "jitter_p": 0.8,
    "blur_p": 0.5,
    "blur_sigma": (0.1, 1.5),
}
_BACKENDS = ("tensor", "pillow")
_AIM = "1.5"


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0, or 2 for bad input."""
    arguments = _parser().parse_args(argv)
    setup()
    try:
        _run(arguments)
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(arguments: argparse.Namespace) -> None:
    cuda = torch.cuda.is_available()
    where = machine(threads=1, device="cuda" if cuda else "cpu")
    tiles = draw_tiles(arguments.tiles, arguments.size)
    arms = {"ours": ours(arguments.size), "ours, no stains": ours(arguments.size, stain_alpha=0.0, stain_beta=0.0)}
    for hue in (True, False):
        for backend in _BACKENDS:
            arms[f"torchvision, {backend}{'' if hue else ', no hue'}"] = peer(arguments.size, backend, hue)
    with one_thread():
        values = in_turns({name: _timed(make, tiles) for name, make in arms.items()}, arguments.rounds)
    tables = _tables(values)
    if cuda:
        found = in_turns({"BatchedViews": _batched(tiles, arguments.size)}, arguments.rounds)
        rows = [(name, spread(own).show()) for name, own in found.items()]
        tables.append(Table(f"On the GPU, batches of {len(tiles)}", ("", "views/s"), rows))
    note = (
        f"{len(tiles)} tiles of {tiles[0].shape[0]} px, views of {arguments.size} px, two of each; {arguments.rounds} "
        f"rounds in turns after one to warm up; medians (range). {where}."
    )
    publish(tables, note, arguments.markdown)


def draw_tiles(count: int, size: int) -> list[np.ndarray]:
    """Tiles of phantom tissue, RGB uint8, just large enough for the largest crop."""
    from pathzoo.datasets.phantom import draw_tissue
    from pathzoo.datasets.transforms.view_recipe import ViewRecipe

    side = ViewRecipe(size, **RECIPE).largest_crop
    rng = np.random.default_rng(0)
    pictures = [draw_tissue(seed, kind, (3 * side, 3 * side), 0.5) for seed, kind in enumerate(("benign", "malignant"))]
    places = rng.integers(0, 2 * side, (count, 2))
    return [pictures[k % 2][y : y + side, x : x + side].copy() for k, (x, y) in enumerate(places)]


def ours(size: int, **changes: Any) -> Callable[[np.ndarray, int], list[torch.Tensor]]:
    """(tile, its number) -> two views, packed."""
    from mmpretrain.datasets.transforms import PackInputs

    from pathzoo.datasets.transforms import HistologyViews

    views, pack = HistologyViews(size=size, **RECIPE, **changes), PackInputs(meta_keys=())
    return lambda tile, number: pack(views({"img": tile, "sample_seed": number}))["inputs"]


def peer(size: int, backend: str, hue: bool = True) -> Callable[[np.ndarray, int], list[torch.Tensor]]:
    """The same of torchvision's, from the kind of picture that the backend works on."""
    low, high = RECIPE["zoom"]
    # Areas of the same crops, of a tile as large as the largest of them.
    scale = ((low / high) ** 2, 1.0)
    colour = {name: RECIPE[name] for name in ("brightness", "contrast", "saturation")} | ({"hue": 0.05} if hue else {})
    reach = 2 * int(np.ceil(3 * RECIPE["blur_sigma"][1])) + 1
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=scale, ratio=(1, 1), antialias=False),
            v2.RandomHorizontalFlip(),
            v2.RandomChoice([_Turn(turns) for turns in range(4)]),
            v2.RandomApply([v2.ColorJitter(**colour)], p=RECIPE["jitter_p"]),
            v2.RandomApply([v2.GaussianBlur(reach, RECIPE["blur_sigma"])], p=RECIPE["blur_p"]),
            v2.PILToTensor() if backend == "pillow" else v2.Identity(),
        ]
    )
    if backend == "pillow":
        return lambda tile, number: _twice(transform, Image.fromarray(tile))
    return lambda tile, number: _twice(transform, torch.from_numpy(tile).permute(2, 0, 1).contiguous())


class _Turn(v2.Transform):
    """By quarter turns, which torchvision's `rotate` does as it does any angle; these cost next to nothing."""

    _PILLOW = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)

    def __init__(self, turns: int) -> None:
        super().__init__()
        self.turns = turns

    def forward(self, picture: Any) -> Any:
        """Of a tensor (3, H, W) or an image of Pillow."""
        if not self.turns:
            return picture
        if isinstance(picture, Image.Image):
            return picture.transpose(self._PILLOW[self.turns])
        return torch.rot90(picture, self.turns, (-2, -1))


def _twice(transform: Any, picture: Any) -> list[torch.Tensor]:
    return [transform(picture).contiguous() for _ in range(2)]


def _timed(make: Callable[[np.ndarray, int], list[torch.Tensor]], tiles: list[np.ndarray]) -> Callable[[], float]:
    rounds = iter(range(10**6))

    def measure() -> float:
        begin = len(tiles) * next(rounds)  # other draws in every round
        started, made = time.process_time(), 0
        for number, tile in enumerate(tiles, begin):
            made += len(make(tile, number))
        return made / (time.process_time() - started)

    return measure


def _batched(tiles: list[np.ndarray], size: int) -> Callable[[], float]:
    from pathzoo.models import BatchedViews

    module = BatchedViews(size=size, **RECIPE).to("cuda")
    batch = {"inputs": torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).contiguous().to("cuda")}

    def measure() -> float:
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(10):
            module(batch, training=True)
        torch.cuda.synchronize()
        return 2 * 10 * len(tiles) / (time.perf_counter() - started)

    return measure


def _tables(values: dict[str, list[float]]) -> list[Table]:
    rows = []
    for name, found in values.items():
        base = "ours, no stains" if ", no " in name else "ours"
        rows.append((name, spread(found).show(), ratio(values[base], found).show()))
    fastest = {}
    for suffix in ("", ", no hue"):
        names = [f"torchvision, {backend}{suffix}" for backend in _BACKENDS]
        fastest[suffix] = max(names, key=lambda name: spread(values[name]).median)
    compared = [
        (f"{name} / {fastest[suffix]}", ratio(values[name], values[fastest[suffix]]).show(), aim)
        for name, suffix, aim in (("ours", "", _AIM), ("ours, no stains", ", no hue", ""), ("ours", ", no hue", ""))
    ]
    return [
        Table("Views, one thread", ("", "views per CPU-second", "ours of its kind / this"), rows),
        Table("Views, ratios to the faster of torchvision's", ("", "ratio (range)", "aim"), compared),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224, help="of a view, pixels")
    parser.add_argument("--tiles", type=int, default=128, help="per round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
