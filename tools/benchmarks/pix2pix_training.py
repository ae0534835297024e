"""Training Pix2Pix on CT slices under the Runner, against a plain PyTorch loop of the same two networks.

    python tools/benchmarks/pix2pix_training.py [--workers N] [--markdown FILE]
    python tools/benchmarks/pix2pix_training.py --device cuda --size 256 512 --base-channels 64 --batch-size 8 \
        --workers 4 [--amp] [--markdown FILE]

Abdomens are drawn and brought into a store of slices; those with kidney or tumour are trained on, as the config says.
Five ways to take the same steps, from the same weights, take turns in one process:

    bare step    the plain step on one batch in memory: the ceiling
    plain loop, batches in memory    the same over the batches of a round, which lie ready on the device
    plain loop, DataLoader    the same over a DataLoader that reads the store by numpy
    train_step, batches in memory    our model and its optimizers without the Runner
    Runner       by the config with all its hooks; validation and checkpoints are not timed

The plain step logs nothing. Before anything counts, it repeats the Runner's first steps with the same slices and random
numbers, and the benchmark ends where a loss differs. From 256 px on, where a size allows it, the generator halves eight
times, as in the paper.
"""

import argparse
import copy
import gc
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import Table, in_turns, machine, publish, ratio, spread
from mmengine.device import get_device
from mmengine.hooks import Hook
from pix2pix_arms import LOSSES, PlainPix2Pix, PlainSlices, pairs_of, plain_loader, timed, wait
from slice_store import draw_store

from pathzoo.apis.config import load_config
from pathzoo.apis.setup import setup
from pathzoo.errors import ConfigError, PathzooError

_CONFIG = "kits_pix2pix/pix2pix_unet_1xb4_40e_kits19_small.py"
_BARE, _MEMORY, _LOADER = "bare step (ceiling)", "plain loop, batches in memory", "plain loop, DataLoader"
_STEP, _RUNNER = "train_step, batches in memory", "Runner"
_AIM = "over 0.95"
#: Steps of the Runner that the plain step repeats.
_CHECKED = 3
#: How far a loss may differ, in parts of it. Another dropout alone makes 1e-3; on a GPU sums have no fixed order, and
#: Adam makes whole steps of what is next to zero.
_TOLERANCE = {"cpu": 1e-4, "cuda": 1e-2}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0, or 2 for bad input."""
    args = _parser().parse_args(argv)
    setup()
    try:
        _check(args)
        where = machine(device=args.device)  # first: it tells the load at the start
        tables, notes = [], []
        for size in args.size:
            with tempfile.TemporaryDirectory(prefix="pathzoo-benchmark-") as folder:
                config = make_config(args, size, Path(folder))
                values, note = _measure(config, args)
            tables += _tables(values, size, config.train_dataloader.batch_size, args.amp)
            notes.append(f"{size} px: {note}")
        note = (
            f"{Path(args.config).stem}: {args.iterations} iterations a round, {args.workers} workers, {args.rounds} "
            f"rounds in turns after one to warm up; medians (range). {'; '.join(notes)}. {where}."
        )
        publish(tables, note, args.markdown)
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def make_config(args: argparse.Namespace, size: int, folder: Path) -> Any:
    """The config with the benchmark's sizes over a store that is drawn for it: one epoch a round, no validation."""
    halvings = load_config(args.config).model.generator.num_down
    if size >= 256 and size % 256 == 0:
        halvings = 8
    if size % 2**halvings:
        raise ConfigError(f"--size {size}: the generator halves {halvings} times; give a multiple of {2**halvings}")
    store = draw_store(folder, size, args.patients, args.slices)
    options: dict[str, Any] = {"data_root": str(store.folder), "work_dir": str(folder / "run"), "log_level": "ERROR"}
    options |= {"train_cfg.max_epochs": args.rounds + 1, "model.generator.num_down": halvings}
    for part in ("generator", "discriminator") if args.base_channels else ():
        options[f"model.{part}.base_channels"] = args.base_channels
    loader = {"num_workers": args.workers, "persistent_workers": args.workers > 0, "pin_memory": args.device == "cuda"}
    if args.batch_size:
        loader["batch_size"] = args.batch_size
    config = load_config(args.config, options | {f"train_dataloader.{key}": value for key, value in loader.items()})
    config.train_dataloader.sampler.samples_per_epoch = args.iterations * config.train_dataloader.batch_size
    for key in ("val_dataloader", "val_cfg", "val_evaluator", "test_dataloader", "test_cfg", "test_evaluator"):
        config[key] = None
    # One checkpoint at the end at most: writing files is not what is measured.
    checkpoint = config.default_hooks.checkpoint
    checkpoint.update(interval=args.rounds + 2, save_last=False)
    for key in ("save_best", "rule"):
        checkpoint.pop(key, None)
    if args.amp:
        from mmengine.optim import AmpOptimWrapper

        for part in ("generators", "discriminators"):
            config.optim_wrapper[part].type = AmpOptimWrapper
    return config


def _measure(config: Any, args: argparse.Namespace) -> tuple[dict[str, list[float]], str]:
    """way -> iterations/s of each round, and what there is to say of them."""
    from pathzoo.engine import Runner

    runner = Runner.from_cfg(config)
    rounds = _Rounds(config, args)
    for hook in (rounds, _SameNoise()):
        runner.register_hook(hook, priority=hook.priority)
    runner.train()
    counts = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in (("generator", runner.model.generators), ("discriminator", runner.model.discriminators))
    }
    note = (
        f"{len(runner.train_dataloader.dataset)} slices, {', '.join(f'{k} {n:,}' for k, n in counts.items())} "
        f"parameters, losses of the first {len(rounds.seen)} steps differ by {rounds.difference:.0e} of their value "
        "at most"
    )
    return rounds.values, note


class _SameNoise(Hook):
    """Seeds the dropout of the first steps, which alone draws random numbers in them, by the step."""

    priority = "VERY_LOW"  # EpochSeedHook seeds too

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter < _CHECKED:
            torch.manual_seed(runner.iter)


class _Rounds(Hook):
    """Times the Runner's epochs from their first hook to the last iteration; the other ways run between epochs.

    Attributes:
        values: way -> iterations/s of each round that counts.
        seen: of the first steps, which slices they took and their losses.
        difference: the largest between those losses and the plain step's, relative to them.
    """

    priority = 0  # before every other hook, so that all they do before and during the epoch is timed

    def __init__(self, config: Any, args: argparse.Namespace) -> None:
        self._config, self._args = config, args
        self.values: dict[str, list[float]] = {}
        self.seen: list[tuple[list[int], dict[str, float]]] = []
        self.difference = 0.0

    def before_train(self, runner: Any) -> None:
        """Keeps the initial weights, for the other ways."""
        self._model = copy.deepcopy(runner.model)

    def before_train_epoch(self, runner: Any) -> None:
        gc.collect()  # as before the other ways
        self._started = time.perf_counter()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if runner.iter < _CHECKED:
            places = [sample.slice_index for sample in data_batch["data_samples"]]
            self.seen.append((places, {name: outputs[name].item() for name in LOSSES}))

    def after_train_epoch(self, runner: Any) -> None:
        wait(self._args.device)
        speed = self._args.iterations / (time.perf_counter() - self._started)
        if not runner.epoch:
            self.difference = self._compare()
            self._ways = make_ways(self._config, self._args, self._model, runner.train_dataloader.dataset)
            self.values = {name: [] for name in (*self._ways, _RUNNER)}
        names = list(self._ways)
        turn = runner.epoch % len(names)
        ordered = {name: self._ways[name] for name in names[turn:] + names[:turn]}
        found = in_turns(ordered, rounds=1, warmup=0) | {_RUNNER: [speed]}
        if runner.epoch:  # the first is to warm up
            for name, speeds in found.items():
                self.values[name] += speeds
        print(f"round {runner.epoch + 1}/{runner.max_epochs}", file=sys.stderr, flush=True)

    def _compare(self) -> float:
        """Repeats the Runner's first steps by the plain one; ends the benchmark where a loss differs."""
        plain, largest = _plain(self._config, self._args, self._model), 0.0
        slices, n_classes = _slices(self._config), self._model.n_classes
        for number, (places, wanted) in enumerate(self.seen):
            batch = [torch.stack(part) for part in zip(*(slices[place] for place in places), strict=True)]
            pairs = pairs_of(batch, n_classes, self._args.device)
            torch.manual_seed(number)
            for name, value in plain.step(*pairs).items():
                difference = abs(float(value) - wanted[name]) / abs(wanted[name])
                if not difference <= _TOLERANCE[self._args.device]:
                    raise SystemExit(
                        f"step {number + 1}: {name} is {wanted[name]} under the Runner and {float(value)} in the plain "
                        "loop: they do not compute the same, nothing to compare"
                    )
                largest = max(largest, difference)
        return largest


def make_ways(config: Any, args: argparse.Namespace, model: Any, dataset: Any) -> dict[str, Callable[[], float]]:
    """way -> what takes a round of steps and returns iterations/s; each trains a copy of `model`'s networks."""
    from mmengine.optim import build_optim_wrapper

    batch_size, n_classes, device = config.train_dataloader.batch_size, model.n_classes, args.device
    places = [dataset.get_data_info(index)["slice_index"] for index in range(len(dataset))]
    loader = plain_loader(_slices(config, places), batch_size, args.iterations, args.workers, device)
    held = [pairs_of(batch, n_classes, device) for batch in loader]
    bare, memory, reading = (_plain(config, args, model) for _ in range(3))
    ours = copy.deepcopy(model)
    ours.data_preprocessor = _AsTheyAre()
    wrapper = build_optim_wrapper(ours, copy.deepcopy(config.optim_wrapper))

    def train_step(pairs: tuple[torch.Tensor, torch.Tensor]) -> None:
        inputs = dict(zip(("img_label", "img_image"), pairs, strict=True))
        ours.train_step({"inputs": inputs, "data_samples": None}, wrapper)

    return {
        _BARE: timed(lambda: itertools.repeat(held[0], args.iterations), lambda pairs: bare.step(*pairs), device),
        _MEMORY: timed(lambda: held, lambda pairs: memory.step(*pairs), device),
        _LOADER: timed(lambda: loader, lambda batch: reading.step(*pairs_of(batch, n_classes, device)), device),
        _STEP: timed(lambda: held, train_step, device),
    }


class _AsTheyAre(torch.nn.Module):
    """In the place of a preprocessor, for pairs that are made beforehand."""

    def forward(self, data: Any, training: bool = False) -> Any:
        return data


def _plain(config: Any, args: argparse.Namespace, model: Any) -> PlainPix2Pix:
    """A plain step around copies of a model's networks, with the config's losses and optimizers."""
    networks = (copy.deepcopy(part["image"]) for part in (model.generators, model.discriminators))
    adam = config.optim_wrapper.generators.optimizer
    if adam != config.optim_wrapper.discriminators.optimizer or adam.type is not torch.optim.Adam:
        raise ConfigError(f"{args.config}: give a config that trains both networks by the same Adam")
    amp = torch.float16 if args.amp else None
    return PlainPix2Pix(*networks, config.model.pixel_loss_weight, adam.lr, tuple(adam.betas), amp)


def _slices(config: Any, places: Sequence[int] | None = None) -> PlainSlices:
    dataset = config.train_dataloader.dataset
    window = dataset.pipeline[0]
    return PlainSlices(Path(dataset.data_root), places, window.centre, window.width)


def _tables(values: dict[str, list[float]], size: int, batch: int, amp: bool) -> list[Table]:
    rows = [
        (
            name,
            spread(found).show(),
            spread([batch * value for value in found]).show(),
            ratio(found, values[_BARE]).show(),
        )
        for name, found in values.items()
    ]
    compared = [
        (f"{_RUNNER} / {base}", ratio(values[_RUNNER], values[base]).show(), aim)
        for base, aim in ((_LOADER, _AIM), (_MEMORY, _AIM), (_STEP, ""))
    ]
    title = f"Pix2Pix, {size} px, batches of {batch}{', mixed precision' if amp else ''}"
    return [
        Table(title, ("", "iterations/s", "images/s", "of the ceiling"), rows),
        Table(f"{title}: ratios", ("", "ratio (range)", "aim"), compared),
    ]


def _check(args: argparse.Namespace) -> None:
    """Raises ConfigError for a device that mmengine would not take, and mixed precision without a GPU."""
    seen = get_device()
    if args.device is None:
        args.device = seen
    if args.device != seen:
        remedy = "hide it by CUDA_VISIBLE_DEVICES=" if seen == "cuda" else "leave it out"
        raise ConfigError(f"--device {args.device}: the Runner trains on what it finds, which is {seen}; {remedy}")
    if args.amp and seen != "cuda":
        raise ConfigError("--amp: mixed precision needs a GPU and none is visible here; leave --amp out")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=_CONFIG, help="a config of Pix2Pix on CT slices (default: the small one)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="what is at hand by default")
    parser.add_argument("--size", type=int, nargs="+", default=[128], metavar="PX", help="of a slice; one table each")
    parser.add_argument("--base-channels", type=int, help="of both networks; the config's where not given")
    parser.add_argument("--batch-size", type=int, help="the config's where not given")
    parser.add_argument("--amp", action="store_true", help="all in mixed precision, float16; needs a GPU")
    parser.add_argument("--workers", type=int, default=0, help="loader processes (default: %(default)s)")
    parser.add_argument("--patients", type=int, default=10, help="that are drawn (default: %(default)s)")
    parser.add_argument("--slices", type=int, default=24, help="of each patient (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=40, help="per round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
