"""Time to make pseudo-labels, in seconds per megapixel of the regions.

    python tools/benchmarks/pseudo_labelling.py [--network resnest14d] [--tile 256] [--stride 192] [--markdown FILE]

A phantom cohort is drawn and its unlabelled regions are labelled by an untrained U-Net, in turns:

    bare network    the network alone on as many tiles, normalised and in memory: the ceiling
    labeller        cutting, normalising, softmax, blending, class and confidence; without other views, with 4, with 8
    whole round     the labeller without other views, and all that is written: two pictures and a record for each
                    region, thresholds, labels, provenance, audit with truth

An untrained network's maps are noise, which makes larger pictures and takes longer to write than what a trained one
gives. What a round costs beside the network is measured alone, too: it does not depend on the network.
"""

import argparse
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Table, in_turns, machine, publish, ratio, spread

from pathzoo.apis.setup import setup
from pathzoo.errors import PathzooError

_BARE, _ROUND = "bare network (ceiling)", "whole round, 1 view"
_CLASSES = 3
_SILENT = logging.getLogger("pseudo_labelling")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0, or 2 for bad input."""
    arguments = _parser().parse_args(argv)
    _SILENT.addHandler(logging.NullHandler())
    _SILENT.propagate = False
    setup()
    try:
        with tempfile.TemporaryDirectory(prefix="pathzoo-benchmark-") as folder:
            _run(Path(folder), arguments)
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(folder: Path, arguments: argparse.Namespace) -> None:
    from pathzoo.engine.self_training import Tiling

    tiling = Tiling(arguments.tile, arguments.stride, "none", arguments.batch_size)
    dataset = _dataset(folder / "data", arguments)
    model = _network(arguments)
    images = [dataset.unlabelled.read_image(i) for i in range(len(dataset.unlabelled.regions))]
    megapixels = sum(image.shape[0] * image.shape[1] for image in images) / 1e6
    where = machine(device=arguments.device)
    arms = _arms(folder, dataset, model, images, tiling, arguments.device)
    values = in_turns({name: _per(megapixels, arm) for name, arm in arms.items()}, arguments.rounds)
    parts = _parts(folder, dataset, model, images, tiling)
    alone = in_turns({name: _per(megapixels, arm) for name, arm in parts.items()}, arguments.rounds)
    tiles = sum(len(_crops(image, tiling)) for image in images)
    height, width = images[0].shape[:2]
    note = (
        f"{arguments.network} U-Net, untrained; {len(images)} regions of {width} x {height} px "
        f"({megapixels:.2f} megapixels), {tiles} tiles of {tiling.tile} px every {tiling.stride} px, batches of "
        f"{tiling.batch_size}; {arguments.rounds} rounds in turns after one to warm up; medians (range). {where}."
    )
    publish([_table(values), _parts_table(alone)], note, arguments.markdown)


def _arms(
    folder: Path, dataset: Any, model: Any, images: list[np.ndarray], tiling: Any, device: str
) -> dict[str, Callable[[], None]]:
    from dataclasses import replace

    from pathzoo.engine.self_training import make_round, predict_region
    from pathzoo.engine.self_training.labeller import VIEWS

    crops = torch.cat([_crops(image, tiling) for image in images]).to(device)
    held = [((part.float() - 128) / 64).contiguous() for part in crops.split(tiling.batch_size)]

    @torch.inference_mode()
    def bare() -> None:
        for batch in held:
            model(batch, mode="tensor")

    def labeller(tta: str) -> Callable[[], None]:
        seen = replace(tiling, tta=tta)
        return lambda: [predict_region(model, image, _CLASSES, seen) for image in images] and None

    def whole_round() -> None:
        shutil.rmtree(folder / "run", ignore_errors=True)
        make_round(_plan(folder / "run", dataset, tiling), model, _SILENT)

    labellers = {_labeller(tta): labeller(tta) for tta in VIEWS}
    return {name: _waited(arm, device) for name, arm in {_BARE: bare, **labellers, _ROUND: whole_round}.items()}


def _parts(
    folder: Path, dataset: Any, model: Any, images: list[np.ndarray], tiling: Any
) -> dict[str, Callable[[], None]]:
    """What a round does beside the network."""
    from pathzoo.engine.self_training import make_round, predict_region
    from pathzoo.engine.self_training.pictures import write_grey, write_labels
    from pathzoo.engine.self_training.records import count_levels

    predictions = [predict_region(model, image, _CLASSES, tiling) for image in images]
    plan = _plan(folder / "parts", dataset, tiling)
    make_round(plan, model, _SILENT)

    def write() -> None:
        for number, (predicted, confidence) in enumerate(predictions):
            write_labels(folder / "written" / f"{number}.png", predicted, [(0, 0, 0)] * _CLASSES)
            write_grey(folder / "written" / f"{number}c.png", confidence)
            count_levels(predicted, confidence, _CLASSES)

    def conclude() -> None:
        make_round(plan, model, _SILENT)  # every region is done: what was written is checked, read and audited

    return {"write class and confidence": write, "check, threshold, write labels, audit": conclude}


def _plan(work_dir: Path, dataset: Any, tiling: Any) -> Any:
    from pathzoo.engine.self_training import Round, checked_policy

    policy = checked_policy({"type": "quantile", "keep": 0.5})
    return Round(work_dir, 1, 1, "0" * 32, dataset, "model", policy, tiling)


def _dataset(root: Path, arguments: argparse.Namespace) -> Any:
    from pathzoo.datasets.breast_lesions import BreastLesions
    from pathzoo.datasets.phantom import write_regions
    from pathzoo.datasets.pseudo_labelled import PseudoLabelled

    patients = 3 * arguments.regions  # a third labelled, a third not, a third for testing
    print(f"drawing {patients} phantom regions ...", file=sys.stderr)
    write_regions(root, patients=patients, regions_per_patient=1, size=tuple(arguments.size))
    split = {"scheme": "patient_ratio", "ratios": {"train": 2 / 3, "test": 1 / 3}, "label_fraction": 0.5, "seed": 0}
    part = {"type": BreastLesions, "data_root": str(root), "split": split}
    return PseudoLabelled(
        labelled={**part, "subset": "train"}, unlabelled={**part, "subset": "unlabelled"}, patches_per_epoch=1
    )


def _network(arguments: argparse.Namespace) -> Any:
    from mmengine.config import ConfigDict
    from mmseg.models import EncoderDecoder, SegDataPreProcessor

    from pathzoo.models import TimmBackbone, UNetHead
    from pathzoo.registry import MODELS

    indices = (0, 1, 2, 3, 4)
    channels = TimmBackbone(arguments.network, out_indices=indices).channels
    config = {
        "type": EncoderDecoder,
        "data_preprocessor": {"type": SegDataPreProcessor, "mean": [128.0] * 3, "std": [64.0] * 3},
        "backbone": {"type": TimmBackbone, "name": arguments.network, "out_indices": indices},
        "decode_head": {
            "type": UNetHead,
            "in_channels": channels,
            "decoder_channels": (64, 48, 32, 24, 16),
            "num_classes": _CLASSES,
        },
        "train_cfg": {},
        "test_cfg": ConfigDict(mode="whole"),
    }
    torch.manual_seed(0)
    return MODELS.build(config).to(arguments.device).eval()


def _crops(image: np.ndarray, tiling: Any) -> torch.Tensor:
    """The labeller's tiles of one region: (N, 3, tile, tile) uint8."""
    from pathzoo.engine.self_training.labeller import tile_starts

    tops, lefts = (tile_starts(length, tiling.tile, tiling.stride) for length in image.shape[:2])
    crops = [image[y : y + tiling.tile, x : x + tiling.tile] for y in tops for x in lefts]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)


def _per(megapixels: float, work: Callable[[], None]) -> Callable[[], float]:
    def measure() -> float:
        started = time.perf_counter()
        work()
        return (time.perf_counter() - started) / megapixels

    return measure


def _waited(work: Callable[[], None], device: str) -> Callable[[], None]:
    def done() -> None:
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    return done


def _labeller(tta: str) -> str:
    from pathzoo.engine.self_training.labeller import VIEWS

    return f"labeller, {len(VIEWS[tta])} view{'s' if len(VIEWS[tta]) > 1 else ''} ({tta})"


def _table(values: dict[str, list[float]]) -> Table:
    from pathzoo.engine.self_training.labeller import VIEWS

    views = {_BARE: 1, _ROUND: 1, **{_labeller(tta): len(seen) for tta, seen in VIEWS.items()}}
    rows = [
        (name, spread(found).show(), ratio(found, [views[name] * value for value in values[_BARE]]).show())
        for name, found in values.items()
    ]
    return Table("Pseudo-labels, seconds per megapixel", ("", "s/megapixel", "times the network's own"), rows)


def _parts_table(values: dict[str, list[float]]) -> Table:
    rows = [(name, spread(found).show()) for name, found in values.items()]
    return Table("Beside the network, seconds per megapixel", ("", "s/megapixel"), rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnest14d", help="one of timm's with five maps from stride 2 on")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--stride", type=int, help="three quarters of a tile where not given")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--regions", type=int, default=2, help="unlabelled regions, about")
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 960), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
