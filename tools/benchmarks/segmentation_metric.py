"""Milliseconds per megapixel that a segmentation metric takes: ours against mmseg's IoUMetric, 3 classes.

    python tools/benchmarks/segmentation_metric.py [--sizes 256 1024] [--device cpu] [--markdown FILE]

Both get the same predictions as the evaluator hands them over: mmseg's samples as dicts, int64 maps, batches of 8. The
time is that of `process` for all batches and of `evaluate`, which adds up; ours also keeps each region apart and gives
patch, region and patient level. `confusion_counts` on uint8 maps is the counting alone, without torch and samples.
"""

import argparse
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from measuring import Table, in_turns, machine, publish, ratio, spread

from pathzoo.apis.setup import setup
from pathzoo.evaluation.functional import confusion_counts
from pathzoo.evaluation.metrics import SegmentationMetric

CLASSES = ("normal", "benign", "malignant")
_BATCH, _PATCHES_PER_REGION = 8, 16


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0."""
    arguments = _parser().parse_args(argv)
    setup()
    torch.set_num_threads(1)
    where = machine(device=arguments.device)
    rows = [_row(size, arguments) for size in arguments.sizes]
    columns = (
        "patch, px",
        "patches",
        "confusion_counts (numpy, uint8)",
        "SegmentationMetric",
        "IoUMetric",
        "IoUMetric / ours",
    )
    note = (
        f"Medians (range) of {arguments.rounds} rounds in turns, after one to warm up; one thread; the mIoU of both is "
        f"the same. {where}."
    )
    table = Table("Segmentation metric, ms per megapixel, 3 classes, a twentieth ignored", columns, rows)
    publish([table], note, arguments.markdown)
    return 0


def samples(size: int, megapixels: float, device: str = "cpu", seed: int = 0) -> list[dict]:
    """mmseg's samples as the evaluator hands them over: areas of some tens of pixels, about a tenth of them wrong."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(max(_BATCH, round(megapixels * 1e6 / size**2))):
        coarse = rng.integers(0, len(CLASSES), (-(-size // 32),) * 2)
        truth = np.kron(coarse, np.ones((32, 32), np.int64))[:size, :size]
        prediction = np.roll(truth, (2, 1), (0, 1))
        truth[: size // 20] = 255
        region = index // _PATCHES_PER_REGION
        made.append(
            {
                "item": f"{region}.png",
                "patient": f"p{region // 2}",
                "slide": None,
                "img_path": f"{region}.png",
                "region_index": region,
                "sample_idx": index,
                "patch_x": 0,
                "patch_y": 0,
                "gt_sem_seg": {"data": torch.from_numpy(truth[None]).to(device)},
                "pred_sem_seg": {"data": torch.from_numpy(prediction[None]).to(device)},
            }
        )
    return made


def _row(size: int, arguments: argparse.Namespace) -> tuple[str, ...]:
    from mmseg.evaluation import IoUMetric

    batch = samples(size, arguments.megapixels, arguments.device)
    megapixels = len(batch) * size**2 / 1e6
    maps = [
        tuple(sample[key]["data"].cpu().numpy().astype(np.uint8) for key in ("gt_sem_seg", "pred_sem_seg"))
        for sample in batch
    ]
    found = {}

    def floor() -> None:
        for truth, prediction in maps:
            confusion_counts(truth, prediction, len(CLASSES))

    def through(name: str, metric: SegmentationMetric | IoUMetric) -> Callable[[], None]:
        metric.dataset_meta = {"classes": CLASSES}

        def run() -> None:
            for start in range(0, len(batch), _BATCH):
                metric.process({}, batch[start : start + _BATCH])
            values = metric.evaluate(len(batch))
            found[name] = 100 * values["miou"] if name == "ours" else values["peer/mIoU"]

        return run

    def timed(work: Callable[[], None]) -> Callable[[], float]:
        def run() -> float:
            _wait(arguments.device)
            started = time.perf_counter()
            work()
            _wait(arguments.device)
            return (time.perf_counter() - started) * 1000 / megapixels

        return run

    arms = {
        "floor": timed(floor),
        "ours": timed(through("ours", SegmentationMetric())),
        "peer": timed(through("peer", IoUMetric(prefix="peer"))),
    }
    with _silent():
        values = in_turns(arms, arguments.rounds)
    if abs(found["ours"] - found["peer"]) > 0.01:  # IoUMetric rounds to two digits
        raise SystemExit(f"SegmentationMetric finds an mIoU of {found['ours']} %, IoUMetric of {found['peer']} %")
    shown = (spread(values[name]).show() for name in ("floor", "ours", "peer"))
    return (str(size), f"{len(batch):,}", *shown, ratio(values["peer"], values["ours"]).show())


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


@contextlib.contextmanager
def _silent():
    """IoUMetric prints a table at every evaluation."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        logging.disable(before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024], metavar="PX", help="of a square patch")
    parser.add_argument("--megapixels", type=float, default=16.0, help="in all, per measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="where the label maps lie: cpu or cuda")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
